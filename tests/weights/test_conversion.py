import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import CondConv2d
from condconv_det.weights import SOURCES, conversion, convert, convert_file
from condconv_det.weights.conversion import translate

pytestmark = pytest.mark.usefixtures('small_images')

IMAGENET = Path(__file__).parents[2] / 'configs' / 'imagenet'
# The cheapest of each kind that a library has.
SMALL = {
    'timm': (
        'mobilenetv1_100',
        'mobilenetv2_035',
        'mobilenetv3_small_100',
        'mobilenetv3_large_100',
        'tf_mobilenetv3_small_100',
        'semnasnet_050',
        'efficientnet_b0',
        'tf_efficientnet_cc_b0_4e',
        'resnet18',
        'resnet50',
    ),
    'torchvision': (
        *('mobilenet_v2', 'mobilenet_v3_small', 'mobilenet_v3_large', 'mnasnet0_5'),
        *('efficientnet_b0', 'resnet18'),
    ),
    'mmdet': ('mobilenet_v2', 'efficientnet_b0', 'resnet18'),
    'mmpretrain': ('mobilenet_v2', 'mobilenet_v3_small', 'efficientnet_b0', 'resnet18'),
}


# One of each library and of most kinds of network; the others take minutes together.
QUICK = (
    ('timm', 'mobilenetv1_100'),
    ('timm', 'tf_efficientnet_cc_b0_4e'),
    ('torchvision', 'mobilenet_v3_small'),
    ('torchvision', 'mnasnet0_5'),
    ('mmdet', 'mobilenet_v2'),
    ('mmpretrain', 'resnet18'),
)
# Of which experts are made: TensorFlow's padding, squeeze-and-excitation, mmdet's own names.
EXPERTS = (QUICK[0], QUICK[2], QUICK[4])


def all_of(table):
    return [(library, arch) for library, archs in table.items() for arch in archs]


def some_long(pairs, quick=QUICK):
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.long) for pair in pairs]


def load_backbone(cfg, checkpoint):
    """As a detector's config does."""
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')
    backbone = MODELS.build({**cfg, 'init_cfg': init_cfg})
    backbone.init_weights()
    backbone.double().eval()  # mmdet's ResNet does not return itself
    return backbone


@torch.no_grad()
def their_features(network, source, image):
    seen = []
    module = network.get_submodule(source.features)
    module.register_forward_hook(lambda module, given, output: seen.append(output))
    network(image)
    return seen[0][-1] if isinstance(seen[0], tuple) else seen[0]


@pytest.mark.parametrize('library, arch', some_long(all_of(SMALL)))
def test_converted_weights_compute_the_same(library, arch, original, save, tmp_path):
    network, dest = original(library, arch), tmp_path / 'converted.pth'
    suffix = '.safetensors' if library == 'timm' else '.pth'
    done = convert_file(save(network.state_dict(), suffix), dest, library, arch)
    assert done.difference < 1e-9

    image = torch.randn(2, 3, 97, 64).double()
    theirs = their_features(network.double(), SOURCES[library][arch], image)
    with torch.no_grad():
        ours = load_backbone(torch.load(dest)['meta']['backbone'], dest)(image)[-1]
    assert theirs.std() > 0.01  # else anything would agree
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize('library, arch', some_long(all_of(SOURCES), quick=all_of(SMALL)))
def test_every_network_has_ours_names_and_shapes(library, arch, shapes_alone):
    source = SOURCES[library][arch]
    backbone = MODELS.build(source.backbone)
    state_dict = source.build([]).state_dict()
    own, rest = translate(state_dict, source, backbone)
    assert own.keys() == backbone.state_dict().keys()
    assert len(own) + len(rest) == len(state_dict)


def test_the_file_says_where_it_came_from(original, save, tmp_path):
    dest = tmp_path / 'new folder' / 'converted.pth'
    source_file = save(original('timm', 'mobilenetv1_100').state_dict(), '.safetensors')
    convert_file(source_file, dest, 'timm', 'mobilenetv1_100')
    meta = torch.load(dest, weights_only=True)['meta']
    assert meta['origin']['library'] == 'timm' and meta['origin']['arch'] == 'mobilenetv1_100'
    assert meta['origin']['file'] == 'original.safetensors'
    assert len(meta['origin']['sha256']) == 64 and meta['origin']['largest_difference'] < 1e-9
    assert meta['backbone']['type'] == 'CondConvMobileNetV1'
    assert meta['backbone']['conv_cfg'] is None  # timm pads on all sides
    assert list(dest.parent.iterdir()) == [dest]


@pytest.mark.parametrize(
    'library, arch, config, options',
    [
        ('timm', 'tf_efficientnet_cc_b0_4e', 'efficientnet-b0-condconv-e4', {}),
        pytest.param('torchvision', 'mobilenet_v2', 'mobilenet-v2', {}, marks=pytest.mark.long),
        pytest.param('mmpretrain', 'resnet50', 'resnet50', {}, marks=pytest.mark.long),
        # the kernel of the classifier, too, becomes experts
        ('timm', 'mobilenetv1_100', 'mobilenet-v1-condconv-e8', dict(conv_cfg=None)),
    ],
)
def test_a_classifier_of_configs_imagenet_scores_as_the_original(
    library, arch, config, options, original, save, tmp_path
):
    image = torch.randn(2, 3, 64, 64)
    network, dest = original(library, arch, image), tmp_path / 'converted.pth'
    convert_file(save(network.state_dict()), dest, library, arch)
    cfg = Config.fromfile(IMAGENET / f'{config}_8xb32_in1k.py')
    cfg.model.head.num_classes = 10
    cfg.model.backbone.update(options)
    classifier = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'})
    load_checkpoint(classifier, str(dest))
    classifier, network = classifier.double().eval(), network.double()
    with torch.no_grad():
        ours, theirs = classifier(image.double(), mode='tensor'), network(image.double())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize('library, arch', some_long(EXPERTS, quick=EXPERTS[1:2]))
def test_static_weights_become_experts_that_compute_the_same(
    library, arch, original, save, tmp_path
):
    network, dest = original(library, arch), tmp_path / 'converted.pth'
    done = convert_file(save(network.state_dict()), dest, library, arch, num_experts=2)
    assert done.difference < 1e-3  # the experts' rounding
    backbone = load_backbone(torch.load(dest)['meta']['backbone'], dest)
    experts = [layer for layer in backbone.modules() if isinstance(layer, CondConv2d)]
    assert experts and all(layer.weight.std(0).mean() > 0 for layer in experts)


def test_a_detector_keeps_its_other_parts(original):
    backbone = original('mmdet', 'resnet18').state_dict()
    neck = dict.fromkeys(['neck.conv.weight', 'bbox_head.conv.bias'], torch.ones(3))
    converted = convert({**backbone, **neck}, 'mmdet', 'resnet18').state_dict
    assert converted.keys() == backbone.keys() | neck.keys()


def test_what_wraps_the_weights_is_taken_off(original, save, tmp_path):
    state_dict = original('torchvision', 'resnet18').state_dict()
    wrapped = dict(epoch=3, model={f'module.{key}': value for key, value in state_dict.items()})
    convert_file(save(wrapped), tmp_path / 'converted.pth', 'torchvision', 'resnet18')


def test_files_from_before_num_batches_tracked_convert(original):
    state_dict = {
        key: value
        for key, value in original('torchvision', 'resnet18').state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    converted = convert(state_dict, 'torchvision', 'resnet18').state_dict
    assert converted['backbone.bn1.num_batches_tracked'] == 0


def test_without_the_library_the_names_still_decide(original, save, tmp_path, monkeypatch):
    state_dict = original('timm', 'mobilenetv2_035').state_dict()
    monkeypatch.setitem(sys.modules, 'timm', None)
    dest = tmp_path / 'converted.pth'
    assert convert_file(save(state_dict), dest, 'timm', 'mobilenetv2_035').difference is None
    assert torch.load(dest)['meta']['origin']['largest_difference'] is None
    with pytest.raises(CheckpointError):
        convert(state_dict, 'timm', 'mobilenetv2_050')


def scale_one_kernel(own):
    own['layer3.0.depthwise_conv.conv.weight'] = 1.1 * own['layer3.0.depthwise_conv.conv.weight']


def swap_two_norms(own):
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
        names = [f'layer3.0.{part}_conv.bn.{leaf}' for part in ('expand', 'depthwise')]
        own[names[0]], own[names[1]] = own[names[1]], own[names[0]]


def lose_a_number(own):
    own['conv1.conv.weight'] = torch.full_like(own['conv1.conv.weight'], torch.nan)


@pytest.mark.parametrize('tamper', [scale_one_kernel, swap_two_norms, lose_a_number])
def test_nothing_is_written_when_the_networks_differ(tamper, original, save, tmp_path, monkeypatch):
    plain_rename = conversion.rename

    def wrong_rename(*args):
        own = plain_rename(*args)
        tamper(own)
        return own

    monkeypatch.setattr(conversion, 'rename', wrong_rename)
    source_file = save(original('timm', 'mobilenetv2_035').state_dict())
    dest = tmp_path / 'empty' / 'converted.pth'
    dest.parent.mkdir()
    with pytest.raises(CheckpointError, match='computes something else than timm mobilenetv2_035'):
        convert_file(source_file, dest, 'timm', 'mobilenetv2_035')
    assert not list(dest.parent.iterdir())


@pytest.mark.parametrize(
    'arch, change',
    [
        ('efficientnet_b0', dict(conv_cfg=dict(type='Conv2dAdaptivePadding'))),
        ('mobilenetv3_small_100', dict(norm_cfg=dict(type='BN', eps=1e-2))),
    ],
)
def test_another_padding_or_eps_is_noticed(arch, change, original, monkeypatch):
    source = SOURCES['timm'][arch]
    wrong = dataclasses.replace(source, backbone={**source.backbone, **change})
    monkeypatch.setitem(SOURCES['timm'], arch, wrong)
    with pytest.raises(CheckpointError, match='computes something else'):
        convert(original('timm', arch).state_dict(), 'timm', arch)


@pytest.mark.parametrize(
    'given, claimed, says',
    [
        (('torchvision', 'resnet18'), ('torchvision', 'resnet34'), 'lacks: layer1.2'),
        (('torchvision', 'resnet18'), ('torchvision', 'resnet50'), 'shapes differ'),
        (('timm', 'mobilenetv2_035'), ('timm', 'mobilenetv2_050'), 'shapes differ'),
        (('timm', 'mobilenetv2_035'), ('timm', 'mnasnet_050'), 'shapes differ'),
        (('timm', 'mnasnet_050'), ('timm', 'semnasnet_050'), 'has 52 .*, CondConvMnasNet has 49'),
        (('timm', 'mobilenetv2_035'), ('timm', 'efficientnet_b1'), 'has 52 .* in 19 parts'),
        (('timm', 'mobilenetv2_035'), ('torchvision', 'mobilenet_v2'), 'of another network'),
        (('torchvision', 'mobilenet_v2'), ('timm', 'mobilenetv2_100'), 'of another network'),
        (('mmpretrain', 'resnet18'), ('torchvision', 'resnet50'), 'shapes differ'),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(given, claimed, says, original, save, tmp_path):
    dest = tmp_path / 'converted.pth'
    with pytest.raises(CheckpointError, match=says):
        convert_file(save(original(*given).state_dict()), dest, *claimed)
    assert not dest.exists()


@pytest.mark.parametrize(
    'library, arch, says',
    [
        ('timm', 'resnet9', r"timm has no network 'resnet9' .* mobilenetv1_100, .*resnet152"),
        ('tim', 'resnet18', r"must be one of \['timm', 'torchvision', .*got 'tim'"),
    ],
)
def test_an_unknown_name_lists_those_there_are(library, arch, says):
    with pytest.raises(ValueError, match=says):
        convert({}, library, arch)


@pytest.mark.parametrize(
    'arch, num_experts, says',
    [
        ('tf_efficientnet_cc_b0_4e', 8, 'has experts already'),
        ('mobilenetv2_035', 0, 'num_experts must be an integer of at least 1'),
    ],
)
def test_experts_that_cannot_be_are_refused(arch, num_experts, says, original):
    with pytest.raises(ValueError, match=says):
        convert(original('timm', arch).state_dict(), 'timm', arch, num_experts)


class RunsCode:
    def __reduce__(self):
        return print, ('ran',)


@pytest.mark.parametrize(
    'suffix, spoil, says',
    [
        ('.pth', lambda data: data[: len(data) // 2], 'is not a whole checkpoint'),
        ('.safetensors', lambda data: data[: len(data) // 2], 'is not a whole checkpoint'),
        ('.safetensors', lambda data: b'', 'is not a whole checkpoint'),
        ('.pth', lambda data: json.dumps([1]).encode(), 'is not a whole checkpoint'),
    ],
)
def test_a_damaged_file_is_named(suffix, spoil, says, save, tmp_path):
    path, dest = save(nn.Conv2d(3, 4, 3).state_dict(), suffix), tmp_path / 'converted.pth'
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match=f'original{suffix} {says}'):
        convert_file(path, dest, 'torchvision', 'resnet18')
    assert not dest.exists()


@pytest.mark.parametrize(
    'content, says',
    [
        (RunsCode(), 'holds .*print'),
        (torch.ones(3), 'does not hold weights'),
        (dict(state_dict={}), 'does not hold weights'),
        (dict(fc=dict(weight=torch.ones(3))), 'does not hold weights'),
    ],
)
def test_a_file_of_something_else_is_refused(content, says, save, tmp_path):
    dest = tmp_path / 'converted.pth'
    with pytest.raises(CheckpointError, match=says):
        convert_file(save(content), dest, 'torchvision', 'resnet18')
    assert not dest.exists()


def test_only_pth_is_written(original, save, tmp_path):
    source_file = save(original('torchvision', 'resnet18').state_dict())
    with pytest.raises(ValueError, match='is written as .pth'):
        convert_file(source_file, tmp_path / 'out.safetensors', 'torchvision', 'resnet18')


def test_a_failed_write_leaves_what_was_there(original, save, tmp_path, monkeypatch):
    source_file = save(original('torchvision', 'resnet18').state_dict())
    dest = tmp_path / 'out' / 'converted.pth'
    dest.parent.mkdir()
    dest.write_text('precious')

    def full_disk(content, path):
        path.write_text('half')
        raise OSError('no space left')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(OSError, match='no space left'):
        convert_file(source_file, dest, 'torchvision', 'resnet18')
    assert [path.read_text() for path in dest.parent.iterdir()] == ['precious']


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
def test_the_original_is_the_librarys_own_in_any_scope(library, scope):
    with DefaultScope.overwrite_default_scope(scope):
        network = SOURCES[library]['mobilenet_v2'].build([])
    assert type(network.backbone).__module__.startswith(f'{library}.')
