"""The command line that freezes routing, on a small set of shapes."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from condconv_det.analysis.configs import build_model
from condconv_det.data.shapes import make_shapes
from condconv_det.deploy.write import MIN_TORCH
from condconv_det.layers import CondConv2d, Router

DOMAINS = ['daylight', 'night', 'thermal', 'textile', 'sketch', 'fog']
OLD_TORCH = tuple(map(int, torch.__version__.split('.')[:2])) < MIN_TORCH


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory):
    """With data, the routed detector's config.py and trained.pth, and what does not fit."""
    folder = tmp_path_factory.mktemp('freeze')
    shapes = folder / 'data' / 'shapes'
    make_shapes(shapes, dict(train=6, val=12, test=2), size=128)
    cfg = Config.fromfile(trained['routed'][0])
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.dump(folder / 'config.py')
    cfg.model.backbone.cond_cfg.routing = dict(hierarchical=True)
    cfg.dump(folder / 'hierarchical.py')
    shutil.copy(trained['routed'][1], folder / 'trained.pth')
    shutil.copy(trained['static'][0], folder / 'static.py')
    shutil.copy(trained['static'][1], folder / 'static.pth')
    (folder / 'two.py').write_text(
        "_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n"
        "custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)\n"
        'model = dict(\n'
        '    backbone=dict(depth=18, init_cfg=None),\n'
        '    neck=dict(in_channels=[64, 128, 256, 512], out_channels=8),\n'
        '    rpn_head=dict(in_channels=8, feat_channels=8),\n'
        '    roi_head=dict(\n'
        '        bbox_roi_extractor=dict(out_channels=8),\n'
        '        bbox_head=dict(in_channels=8, fc_out_channels=8),\n'
        '        mask_roi_extractor=dict(out_channels=8),\n'
        '        mask_head=dict(\n'
        '            in_channels=8,\n'
        '            conv_out_channels=8,\n'
        "            conv_cfg=dict(type='CondConv2d', num_experts=2),\n"
        '        ),\n'
        '    ),\n'
        ')\n'
    )
    (folder / 'empty').mkdir()
    (folder / 'one').mkdir()
    shutil.copy(sorted((shapes / 'val').iterdir())[0], folder / 'one')
    (folder / 'broken').mkdir()
    for name in ('a.png', 'b.png'):
        (folder / 'broken' / name).write_bytes(b'no image')
    (folder / 'full').mkdir()
    (folder / 'full' / 'mine.txt').touch()
    return folder


@pytest.fixture(autouse=True)
def _in_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def out(folder):
    yield Path('out')
    shutil.rmtree('out', ignore_errors=True)


def freeze(run_tool, out, *options):
    run_tool('freeze_routing.py', 'config.py', 'trained.pth', '--out', out, '--limit', 0, *options)


def test_a_network_for_each_value_of_a_key(run_tool, out, capsys):
    freeze(run_tool, out, '--group-by', 'domain')
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    figures = {row[0]: row[1:] for row in rows if row and row[0] in DOMAINS}
    assert list(figures) == DOMAINS
    assert all(row[0] == '2' and float(row[1]) > 0 for row in figures.values())
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f'{name}{suffix}' for name in DOMAINS for suffix in ('.py', '.pth')
    )
    cfg = Config.fromfile(out / 'fog.py')
    model = build_model(cfg)
    assert not any(isinstance(module, CondConv2d | Router) for module in model.modules())
    kernels = []
    for name in DOMAINS:
        content = torch.load(out / f'{name}.pth', weights_only=True)
        model.load_state_dict(content['state_dict'])
        kernels.append(content['state_dict']['backbone.layer4.1.pointwise_conv.conv.weight'])
        about = content['meta']['frozen']
        assert f'{about["agreement"]:.3f}' == figures[name][2] and about['site'] == name
    assert not torch.equal(kernels[0], kernels[1])


def test_a_folder_of_images_is_a_site_with_new_norms(run_tool, out, capsys):
    freeze(run_tool, out, '--images', 'data/shapes/val', '--renew-norms')
    assert sorted(path.name for path in out.iterdir()) == ['val.pth', 'val.py']
    assert re.search(r'^val +12 +0\.\d{3} +0\.\d{3} +\d+\.\d{3}$', capsys.readouterr().out, re.M)
    assert torch.load(out / 'val.pth', weights_only=True)['meta']['frozen']['renewed']


def test_goes_on_past_a_broken_image_and_reports_it_at_the_end(run_tool, out, tmp_path, capsys):
    site = shutil.copytree('data/shapes/val', tmp_path / 'gate')
    (site / 'broken.png').write_bytes(b'no image')
    with pytest.raises(SystemExit) as ended:
        freeze(run_tool, out, '--images', site)
    assert str(ended.value).startswith('error: 1 of 13 images could not be read:\n  image ')
    assert 'broken.png cannot be read: its 8 bytes' in str(ended.value)
    assert re.search(r'^gate +12 ', capsys.readouterr().out, re.M)
    assert sorted(path.name for path in out.iterdir()) == ['gate.pth', 'gate.py']


def test_one_network_for_all_of_the_validation_set(run_tool, out, capsys):
    freeze(run_tool, out)
    assert sorted(path.name for path in out.iterdir()) == ['all.pth', 'all.py']
    assert re.search(r'^all +12 +0\.\d{3} +0\.\d{3} +\d+\.\d{3}$', capsys.readouterr().out, re.M)


def test_some_values_of_the_training_set(run_tool, out, monkeypatch):
    seen = {}

    def keep(cfg, checkpoint, groups, *_):
        seen.update(groups)
        return {}

    monkeypatch.setattr('condconv_det.deploy.sites.freeze_sites', keep)
    options = ('--group-by', 'domain', '--split', 'train', '--only', 'fog', 'night')
    freeze(run_tool, out, *options)
    images = json.loads(Path('data/shapes/annotations/train.json').read_text())['images']
    expected = {
        name: [Path('data/shapes/train') / x['file_name'] for x in images if x['domain'] == name]
        for name in ('night', 'fog')
    }
    assert seen == expected


@pytest.mark.skipif(OLD_TORCH, reason='export needs a newer torch')
@pytest.mark.long
def test_the_export_tool_takes_it_as_any_static_detector(run_tool, out, capsys):
    import onnx

    freeze(run_tool, out, '--group-by', 'domain', '--only', 'fog')
    run_tool('export.py', out / 'fog.py', out / 'fog.pth', '--images', *Path('one').iterdir())
    run_tool('export.py', 'static.py', 'static.pth', '--images', *Path('one').iterdir())
    assert 'wrote out/fog.onnx' in capsys.readouterr().out
    ours, twins = (
        [(node.op_type, len(node.input)) for node in onnx.load(path).graph.node]
        for path in (out / 'fog.onnx', 'static.onnx')
    )
    assert ours == twins  # the same graph, so the same time
    Path('static.onnx').unlink()


def test_other_tools_take_it(run_tool, out, capsys):
    freeze(run_tool, out, '--group-by', 'domain', '--only', 'fog')
    run_tool('get_flops.py', out / 'fog.py')
    assert re.search(r'experts +0\.000 M', capsys.readouterr().out)
    run_tool('test.py', out / 'fog.py', out / 'fog.pth', '--work-dir', out / 'tested')
    run_tool('detect.py', 'one', out / 'fog.py', out / 'fog.pth', '--out-dir', out / 'seen')
    assert len(list((out / 'seen').glob('*.json'))) == 1


def fails(run_tool, *args):
    """The message with which the tool ends; it leaves no file or folder behind."""
    before = sorted(Path().rglob('*'))
    with pytest.raises(SystemExit) as error:
        run_tool('freeze_routing.py', *args)
    assert sorted(Path().rglob('*')) == before
    return str(error.value)


TRAINED = ('config.py', 'trained.pth')
BY_DOMAIN = ('--group-by', 'domain')


@pytest.mark.parametrize(
    'arguments, says',
    [
        ((*TRAINED, '--images', 'empty'), 'there is no image in empty'),
        ((*TRAINED, '--images', 'nowhere'), 'there is no image in nowhere'),
        ((*TRAINED, '--images', 'one'), 'at least 2 images, .* of one image: one$'),
        (
            (*TRAINED, '--images', 'broken'),
            '2 of 2 images could not be read:\n  image .*broken/a.png cannot be read',
        ),
        ((*TRAINED, *BY_DOMAIN, '--split', 'train'), 'of one image: daylight, fog, night, '),
        (
            (*TRAINED, '--group-by', 'weather'),
            "12 of the 12 images of .*val.json have no 'weather' .* domain, file_name",
        ),
        ((*TRAINED, *BY_DOMAIN, '--only', 'rain'), 'no image has domain rain; there are daylight'),
        (('static.py', 'static.pth', *BY_DOMAIN), 'SingleStageDetector has no routed layers'),
        (
            ('hierarchical.py', 'trained.pth', *BY_DOMAIN),
            'has hierarchical routers, which cannot be frozen: .* no image had',
        ),
        (
            ('two.py', 'trained.pth', '--images', 'data/shapes/val'),
            'MaskRCNN routes regions of an image, which cannot be frozen: each region has kernels',
        ),
        (('config.py', 'static.pth', *BY_DOMAIN), 'static.pth does not fit .* it lacks .*router'),
        (('config.py', 'nowhere.pth', *BY_DOMAIN), 'checkpoint nowhere.pth does not exist'),
        (('nowhere.py', 'trained.pth', *BY_DOMAIN), 'config nowhere.py does not exist'),
        (
            (*TRAINED, *BY_DOMAIN, '--cfg-options', 'val_dataloader=None'),
            'config.py has no val_dataloader, whose images are needed',
        ),
        (
            (*TRAINED, '--images', 'data/shapes/val', '--cfg-options', 'test_dataloader=None'),
            'config.py has no test_dataloader, whose pipeline',
        ),
        (
            (*TRAINED, *BY_DOMAIN, '--cfg-options', 'val_dataloader.dataset.data_root=nowhere'),
            'nowhere/annotations/val.json does not exist, which val_dataloader of config config.py '
            'names; paths count from the working directory, /',
        ),
        ((*TRAINED, *BY_DOMAIN, '--limit', '1'), r'less than 1: daylight 0\.\d{3} \(kernels vary'),
    ],
    ids=str,
)
def test_bad_input_is_named_and_leaves_nothing(run_tool, arguments, says):
    message = fails(run_tool, *arguments, '--out', 'failed')
    assert message.startswith('error: ') and re.search(says, message), message


def test_a_folder_with_files_in_it_stays_as_it_is(run_tool):
    says = 'error: full exists and is not an empty folder'
    assert says in fails(run_tool, *TRAINED, *BY_DOMAIN, '--out', 'full')


@pytest.mark.parametrize(
    'options, says',
    [
        (('--only', 'fog'), '--only goes with --group-by'),
        ((*BY_DOMAIN, '--images', 'one'), 'not allowed with'),
        (('--images', 'one', '--only', 'fog'), '--only goes with --group-by'),
        ((*BY_DOMAIN, '--limit', '1.5'), 'expected a number from 0 to 1, got 1.5'),
        ((*BY_DOMAIN, '--limit', 'half'), 'expected a number from 0 to 1, got half'),
        (('--images', 'one', '--split', 'train'), '--split does not go with --images'),
        ((*BY_DOMAIN, '--split', 'test'), "invalid choice: 'test'"),
    ],
)
def test_options_that_make_no_sense_are_named(run_tool, options, says, capsys):
    fails(run_tool, *TRAINED, '--out', 'failed', *options)
    assert says in capsys.readouterr().err
