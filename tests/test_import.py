"""What an import brings along, seen from processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_alone_needs_neither_torch_nor_mmdet():
    code = 'import sys, condconv_det; print({"torch", "mmcv", "mmdet"} & sys.modules.keys())'
    assert run(code) == 'set()'


LAYER = """
import sys, torch
fans = torch.nn.init._calculate_fan_in_and_fan_out
from condconv_det import CondConv2d
CondConv2d(3, 4, 3, num_experts=2)(torch.randn(2, 3, 5, 5))
assert torch.nn.init._calculate_fan_in_and_fan_out is fans
print([name for name in ('mmcv', 'mmengine.model', 'mmdet') if name in sys.modules])
"""


@pytest.mark.long
def test_a_layer_needs_torch_and_changes_nothing_of_it():
    assert run(LAYER) == '[]'


CONFIG = "custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)"
BY_CONFIG = """
{first}
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
Config.fromfile('config.py')
{scope}
for registry, name in (
    (MODELS, 'CondConvMobileNetV1'), (MODELS, 'CondConvSSDHead'), (HOOKS, 'RoutingHook')
):
    print(registry.get(name).__name__)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    'first, scope',
    [
        ('', ''),
        ('import condconv_det', ''),
        ('from condconv_det.layers import CondConv2d', ''),
        ('import condconv_det, mmdet.models', ''),
        ('', 'from mmdet.registry import HOOKS, MODELS'),
        ('import condconv_det, mmpretrain', 'from mmpretrain.registry import HOOKS, MODELS'),
    ],
)
def test_a_config_that_names_the_package_finds_all_that_it_registers(tmp_path, first, scope):
    (tmp_path / 'config.py').write_text(CONFIG)
    found = run(BY_CONFIG.format(first=first, scope=scope), tmp_path)
    assert found.split() == ['CondConvMobileNetV1', 'CondConvSSDHead', 'RoutingHook']


MENDED = """
import condconv_det
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.runner import runner
from mmengine.dataset import base_dataset
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
for mended in (
    CheckpointLoader._get_checkpoint_loader('a.pth'),
    runner.find_latest_checkpoint,
    base_dataset.load,
    LoadImageFromFile.transform.__code__,
    CocoDataset.load_data_list.__code__,
):
    name = getattr(mended, '__module__', None) or mended.co_filename
    assert 'condconv_det' in name, mended
"""


@pytest.mark.long
def test_what_is_mended_is_mended_without_a_registry_being_asked():
    run(MENDED)
