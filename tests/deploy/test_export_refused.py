"""What `tools/export.py` refuses, before it works: one error each, and no file."""

import shutil
from pathlib import Path

import pytest
import torch

from condconv_det.deploy import write

ROOT = Path(__file__).parents[2]
NOT_A_DETECTOR = ROOT / 'configs/shapes/mobilenet-v1-0.5-condconv-e8_1xb32-10e_shapes-crops.py'
TEST_JSON = ['config.py', 'trained.pth', '--cfg-options', 'test_dataloader.dataset.data_root=.']
STATIC = ['static/config.py', 'static/trained.pth']
NMS = ['config.py', 'trained.pth', '--nms', '--cfg-options']


@pytest.fixture(scope='module')
def template(saved_ssd, save_trained, small_detector, small_cfg, tmp_path_factory):
    """A folder with config.py, trained.pth, a static/ pair of these, and some that do not fit."""
    folder = tmp_path_factory.mktemp('refused')
    (folder / 'static').mkdir()
    save_trained(small_detector('SSD, static'), small_cfg('SSD, static'), folder / 'static')
    for path in saved_ssd:
        shutil.copy(path, folder)
    state_dict = torch.load(folder / 'trained.pth')['state_dict']
    static = {key: value for key, value in state_dict.items() if 'router' not in key}
    torch.save(dict(state_dict=static), folder / 'static.pth')
    del state_dict['bbox_head.cls_convs.0.0.weight']
    torch.save(dict(state_dict=state_dict), folder / 'lacking.pth')
    (folder / 'broken.pth').write_bytes(b'no checkpoint')
    (folder / 'file').touch()
    (folder / 'file.png').touch()
    (folder / 'pictures').mkdir()
    (folder / 'pictures' / 'broken.png').touch()
    (folder / 'folder.onnx').mkdir()
    (folder / 'empty.py').write_text('dataset = dict()')
    (folder / 'list.json').write_text('[]')
    (folder / 'nameless.json').write_text('{"images": [{"id": 1}]}')
    return folder


@pytest.fixture
def folder(template, tmp_path, monkeypatch):
    """The current folder, a copy of the template."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write, 'MIN_TORCH', (2, 0))
    return tmp_path


@pytest.mark.parametrize(
    'arguments, says',
    [
        (['config.py', 'nowhere.pth'], 'checkpoint nowhere.pth does not exist'),
        (['config.py', 'broken.pth'], 'checkpoint broken.pth is not a whole checkpoint'),
        (
            ['config.py', 'lacking.pth'],
            'lacking.pth does not fit SingleStageDetector.*bbox_head.cls_convs.0.0.weight',
        ),
        (
            *(['config.py', 'trained.pth', '--cfg-options', 'model.bbox_head.num_classes=4'],),
            r'trained.pth does not fit SingleStageDetector.*shapes differ in bbox_head.cls_convs',
        ),
        (['config.py', 'static.pth'], 'static.pth does not fit .* it lacks .*router'),
        (['nowhere.py', 'trained.pth'], 'config nowhere.py does not exist'),
        (['empty.py', 'trained.pth'], 'config empty.py has no model'),
        (
            ['config.py', 'trained.pth', '--cfg-options', 'test_dataloader=None'],
            'config.py has no test_dataloader with a pipeline, whose size',
        ),
        (
            [
                *('config.py', 'trained.pth', '--size', '8x8', '--cfg-options'),
                *('model.neck.conv_cfg=None', 'model.neck.level_paddings=[0]'),
            ],
            "--size 8x8: RuntimeError: .*Kernel size can't be greater",
        ),
        ([NOT_A_DETECTOR, 'trained.pth'], 'detectors are exported, got a config of mmpretrain'),
        (['config.py', 'trained.pth', '--out', 'file/out.onnx'], 'file/out.onnx cannot be written'),
        (
            ['config.py', 'trained.pth', '--merge-experts', '--out', 'file/out.onnx'],
            'file/out.onnx cannot be written',  # before it merges
        ),
        (
            [
                *('config.py', 'trained.pth', '--cfg-options'),
                'test_dataloader.dataset.pipeline.0.color_type=grayscale',
            ],
            "config.py: images are read in three channels here, .* color_type='grayscale'",
        ),
        (['config.py', 'trained.pth', '--out', 'folder.onnx'], 'cannot be written: it is a folder'),
        (['config.py', 'trained.pth', '--out', 'out.pt2'], 'onnx writes .onnx, got out.pt2'),
        (['config.py', 'trained.pth', '--images', 'nowhere.jpg'], 'nowhere.jpg'),
        *(
            (['config.py', 'trained.pth', '--format', 'onnx-cpu', *options], says)
            for options, says in (
                (['--batch', '2'], 'onnx-cpu takes one image a call, got a batch of 2'),
                (['--batch', 'dynamic'], 'onnx-cpu takes one image a call, got a batch of any'),
                (['--half-experts'], 'onnx-cpu mixes experts in float32, and keeps them so'),
            )
        ),
        *(
            ([*STATIC, *options], f'{" ".join(options)} {says}')
            for says in ('is for experts, of which SingleStageDetector has none: it is static',)
            for options in (['--half-experts'], ['--format', 'onnx-cpu'])
        ),
        (
            [*STATIC, '--merge-experts', '--images', 'file.png', 'file.png'],
            'SingleStageDetector has no routed layers',
        ),
        *(
            (
                [*TEST_JSON, f'test_dataloader.dataset.ann_file={name}'],
                f'{name} is not COCO json: expected "images" to be a list of objects with a file_',
            )
            for name in ('list.json', 'nameless.json')
        ),
        (
            ['config.py', 'trained.pth', '--cfg-options', 'model.bbox_head.type=Unknown'],
            'config config.py: KeyError: .Unknown is not in',
        ),
        (
            ['config.py', 'trained.pth', '--cfg-options', 'param_scheduler.9.end=1'],
            'config config.py: KeyError: .Index 9 exceeds',
        ),
        (['config.py', 'trained.pth', '--images', 'file'], 'there is no image in file'),
        (['config.py', 'trained.pth', '--images', 'file.png'], 'image file.png cannot be read'),
        (
            ['config.py', 'trained.pth', '--images', 'pictures'],
            'image pictures/broken.png cannot be read',
        ),
        (
            ['config.py', 'trained.pth', '--merge-experts', '--images', 'file.png'],
            'routing varies over at least 2 images, got 1; name more with --images',
        ),
        (
            ['config.py', 'trained.pth', '--merge-experts'],
            'data/shapes/annotations/val.json does not exist, which val_dataloader of config '
            'config.py names; paths count from the working directory, .*; or name images with --im',
        ),
        (
            [*NMS, 'model.test_cfg.nms.type=soft_nms'],
            "plain nms .*'soft_nms'",
        ),
        (
            [*NMS, 'model.test_cfg.max_per_img=0'],
            'at least 1 detection, .*max_per_img of SingleStageDetector is 0',
        ),
    ],
    ids=str,
)
def test_bad_input_is_named_and_nothing_written(arguments, says, folder, run_tool, monkeypatch):
    monkeypatch.setattr(write, 'find_spec', lambda name: name)
    monkeypatch.setattr('condconv_det.deploy.export.write_export', lambda *_: None)
    before = set(folder.iterdir())
    with pytest.raises(SystemExit, match=f'error: .*{says}'):
        run_tool('export.py', *arguments)
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize(
    'option, says',
    [
        (['--format', 'tflite'], "invalid choice: 'tflite'"),
        (['--batch', '0'], "a number of at least 1, or 'dynamic', not '0'"),
        (['--batch', '-1'], "a number of at least 1, or 'dynamic', not '-1'"),
        (['--merge-experts', '0'], "a number above 0 and up to 1, not '0'"),
        (['--merge-experts', 'all'], "a number above 0 and up to 1, not 'all'"),
        (['--size', '0x64'], "HEIGHTxWIDTH in pixels, such as 300x300, not '0x64'"),
        (['--size', 'abc'], "HEIGHTxWIDTH in pixels, such as 300x300, not 'abc'"),
        (['--nms', 'yes'], 'unrecognized arguments: yes'),
        (['--size', '300'], "HEIGHTxWIDTH in pixels, such as 300x300, not '300'"),
        (['--size', '100000x100000'], "at most 100,000,000 pixels, not '100000x100000'"),
    ],
)
def test_an_unsupported_option_is_named(option, says, folder, run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool('export.py', 'config.py', 'trained.pth', *option)
    assert says in capsys.readouterr().err


def test_a_missing_package_is_named(folder, run_tool, monkeypatch):
    monkeypatch.setattr(write, 'find_spec', lambda name: None if name == 'onnxscript' else name)
    with pytest.raises(SystemExit, match=r'onnx needs onnxscript: .*\[deploy\]'):
        run_tool('export.py', 'config.py', 'trained.pth')


@pytest.mark.parametrize('format', write.SUFFIXES)
def test_an_old_torch_is_named(format, folder, run_tool, monkeypatch):
    monkeypatch.setattr(write, 'MIN_TORCH', (99, 1))
    with pytest.raises(SystemExit, match=f'needs torch >= 99.1.* this is {torch.__version__[:3]}'):
        run_tool('export.py', 'config.py', 'trained.pth', '--format', format)
