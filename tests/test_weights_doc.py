"""The names and configs that docs/weights.md gives."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from condconv_det.weights import SOURCES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'weights.md').read_text()
ROWS = re.findall(
    r'^\| `(tf_\w+)` \| `(\S+\.py)` \| (?:`(\S+)=(\d+)`)? *\|', PAGE, flags=re.MULTILINE
)


def test_every_command_names_a_network_that_can_be_converted():
    commands = re.findall(r'--from (\w+) --arch (\w+)', PAGE)
    assert len(commands) == 2
    assert all(arch in SOURCES[library] for library, arch in commands)


def test_there_are_three_of_timms_networks():
    assert [arch for arch, *_ in ROWS] == [arch for arch in SOURCES['timm'] if '_cc_' in arch]


@pytest.mark.parametrize('arch, config, option, value', ROWS)
def test_its_config_is_the_networks_at_the_size_it_was_trained_for(arch, config, option, value):
    source, cfg = SOURCES['timm'][arch], Config.fromfile(ROOT / 'configs' / 'imagenet' / config)
    if option:
        cfg.merge_from_dict({option: int(value)})
    for key in ('type', 'arch', 'cond_cfg'):
        assert cfg.model.backbone[key] == source.backbone[key]
    assert cfg.test_dataloader.dataset.pipeline[1].crop_size == source.side
