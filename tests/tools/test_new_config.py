"""From images and boxes to a trained pair of detectors, by the commands that are printed."""

import json
import os
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from condconv_det.data.shapes import make_shapes
from condconv_det.study.twins import DETECTORS, PLACES

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Twenty images of shapes with one json."""
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / 'shapes', dict(train=20), size=64)
    return tmp_path / 'shapes'


@pytest.fixture
def make(run_tool, capsys):
    """Runs the command line; returns exit code, output and errors."""

    def make(*args):
        with pytest.raises(SystemExit) as exited:
            run_tool('new_config.py', *args)
        return exited.value.code, *capsys.readouterr()

    return make


def commands(out):
    found = [shlex.split(line) for line in out.splitlines() if line.startswith('  python ')]
    return [(Path(command[1]).name, *command[2:]) for command in found]


def test_it_prints_commands_that_fit_what_it_wrote(make, shapes):
    (shapes / 'train' / '000003.jpg').write_bytes(b'')
    code, out, error = make(shapes, '--out', 'mine', '--ratios', 3, 1, 1)
    assert code == 0
    assert error.splitlines() == [
        'fault: train.json: 000003.jpg: broken image: ' + error.partition('broken image: ')[2][:-1]
    ]
    assert 'coco: circle, square' in out and 'faults: 1, all in mine/faults.txt\n' in out
    assert error == f'fault: {Path("mine/faults.txt").read_text()}'
    assert 'near-duplicates: 0 images, none has one in another split\n' in out
    counts = [
        len(json.loads(path.read_text())['images'])
        for path in sorted(Path('mine').glob('*/*.json'))
    ]
    assert sum(counts) == 19 and f'val: {counts[2]} images' in out
    static, condconv = (
        Path('mine', f'ssd300_mobilenet-v1-0.5{kind}_1xb8-{{}}e_shapes.py')
        for kind in ('', '-condconv-e8-head')
    )
    epochs = re.search(r'mine.*-(\d+)e_', out)[1]
    static, condconv = (str(path).format(epochs) for path in (static, condconv))
    drawn = DETECTORS['ssd300'].drawn
    assert commands(out) == [
        ('make_shapes.py', 'data/shapes'),
        (
            'train.py',
            os.path.relpath(CONFIGS / 'shapes' / drawn),
            *DETECTORS['ssd300'].drawn_options,
        ),
        ('train.py', static),
        ('train.py', condconv),
        ('test.py', static, f'{Path(static).with_suffix("")}/epoch_{epochs}.pth'),
        ('test.py', condconv, f'{Path(condconv).with_suffix("")}/epoch_{epochs}.pth'),
    ]
    assert Path(static).exists() and Path(condconv).exists()
    start = Path('work_dirs', Path(drawn).stem, 'epoch_5.pth').resolve()
    lines = [line for line in out.splitlines() if line.startswith('  python ')]
    for config in (static, condconv):
        cfg = Config.fromfile(config)
        assert cfg.model.backbone.init_cfg.checkpoint == str(start)
        assert [f'  {command}' for command in cfg.trained_by] == lines[:2]


def test_a_start_that_is_not_trained_is_one_error_with_the_commands_that_train_it(
    make, shapes, run_tool
):
    _, out, _ = make(shapes, '--out', 'mine')
    drawn, train, *_ = (line for line in out.splitlines() if line.startswith('  python '))
    with pytest.raises(SystemExit) as exited:
        run_tool('train.py', commands(out)[3][1])
    start = Path('work_dirs', Path(DETECTORS['ssd300'].drawn).stem, 'epoch_5.pth').resolve()
    assert exited.value.code.splitlines() == [
        f'error: checkpoint {start} (model.backbone.init_cfg.checkpoint) does not exist; these '
        'commands make it:',
        drawn,
        train,
        'or start from scratch: write the config by new_config.py --weights none',
    ]


def test_five_faults_of_a_kind_are_printed_and_all_are_in_a_file(make, shapes):
    images = sorted((shapes / 'train').iterdir())[:8]
    pixels = [image.read_bytes() for image in images]
    for image in images:
        image.write_bytes(b'')
    code, out, error = make(shapes, '--out', 'mine', '--weights', 'none')
    assert code == 0 and 'faults: 8, all in mine/faults.txt\n' in out
    *named, rest = error.splitlines()
    found = Path('mine/faults.txt').read_text().splitlines()
    assert len(found) == 8 and named == [f'fault: {fault}' for fault in found[:5]]
    assert rest == 'fault: broken image: 3 more, in mine/faults.txt'
    for image, content in zip(images, pixels):
        image.write_bytes(content)
    _, out, error = make(shapes, '--out', 'mine', '--weights', 'none')
    assert 'faults: 0\n' in out and error == '' and not Path('mine/faults.txt').exists()


def test_classes_that_may_be_one_and_those_without_a_box_to_measure_are_noted(make, shapes):
    shapes = shapes.parent / 'three'
    make_shapes(shapes, dict(train=20, val=4, test=4), size=64)
    for path in (shapes / 'annotations').glob('*.json'):
        data = json.loads(path.read_text())
        data['categories'] = [dict(id=1, name='Cat'), dict(id=2, name='cat')]
        for number, annotation in enumerate(data['annotations']):
            annotation['category_id'] = 1 + number % 2 * (path.stem != 'val')
        path.write_text(json.dumps(data))
    (shapes / 'val' / '000001.jpg').write_bytes((shapes / 'train' / '000001.jpg').read_bytes())
    _, out, error = make(shapes, '--out', 'mine', '--weights', 'none')
    assert error == ''
    assert [line for line in out.splitlines() if line.startswith(('note: ', 'near'))] == [
        'near-duplicates: 2 images, 1 of val and test have one in another split',
        'note: Cat and cat differ in case alone and are 2 classes',
        'note: val has no box of cat, which its mAP leaves out',
    ]


def test_a_class_to_measure_that_train_does_not_have_is_noted(make, shapes):
    shapes = shapes.parent / 'three'
    make_shapes(shapes, dict(train=20, val=4, test=4), size=64)
    for path in (shapes / 'annotations').glob('*.json'):
        data = json.loads(path.read_text())
        data['categories'] = [dict(id=i, name=name) for i, name in enumerate(('cat', 'dog', 'emu'))]
        for number, annotation in enumerate(data['annotations']):
            annotation['category_id'] = number % 2 * ('train', 'val', 'test').index(path.stem)
        path.write_text(json.dumps(data))
    _, out, _ = make(shapes, '--out', 'mine', '--weights', 'none')
    assert [line for line in out.splitlines() if line.startswith('note: ')] == [
        'note: train has no box of dog, emu, which cannot be learned and counts as 0',
        'note: val has no box of emu, which its mAP leaves out',
        'note: test has no box of dog, which its mAP leaves out',
    ]


def test_training_images_without_boxes_which_the_crops_leave_out_are_noted(make, shapes):
    path = shapes / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    data['annotations'] = [box for box in data['annotations'] if box['image_id'] % 2]
    path.write_text(json.dumps(data))
    _, out, _ = make(shapes, '--out', 'mine', '--weights', 'none')
    written = json.loads(Path('mine/annotations/train.json').read_text())
    without = len(written['images']) - len({box['image_id'] for box in written['annotations']})
    note = f'note: train has {without} images without boxes, which its random crops leave out\n'
    assert without > 1 and note in out
    static = Config.fromfile(commands(out)[0][1])
    init_default_scope('mmdet')
    dataset = DATASETS.build(static.train_dataloader.dataset)
    drawn = [dataset[number]['data_samples'].gt_instances for number in range(len(dataset))]
    assert len(drawn) == len(written['images']) and all(map(len, drawn))


def test_boxes_that_are_tiny_at_the_training_size_are_noted(make, tmp_path):
    make_shapes(tmp_path / 'large', dict(train=12), size=256)
    path = tmp_path / 'large' / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    for box in data['annotations']:
        box.update(bbox=[*box['bbox'][:2], 3, 3], area=9)
    path.write_text(json.dumps(data))
    _, out, _ = make(tmp_path / 'large', '--out', tmp_path / 'mine', '--weights', 'none')
    note = (
        'note: 100% of the boxes in train are below 4 pixels, a cell of the finest map, at the 300'
    )
    assert note in out


def write_backbone(path, detector):
    cfg = Config.fromfile(CONFIGS / 'shapes' / DETECTORS[detector].drawn)
    init_default_scope('mmdet')
    weights = MODELS.build(cfg.model.backbone).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': {f'backbone.{key}': w for key, w in weights.items()}}, path)
    return weights


def test_drawn_shapes_are_learned_once(make, shapes):
    start = Path('work_dirs', Path(DETECTORS['ssd300'].drawn).stem, 'epoch_5.pth')
    write_backbone(start, 'ssd300')
    _, out, _ = make(shapes, '--out', 'mine')
    assert f'The backbone starts from {start}, which is there.\n' in out
    assert [name for name, *_ in commands(out)] == ['train.py', 'train.py', 'test.py', 'test.py']


def test_a_backbone_starts_from_weights_of_ones_own(make, shapes):
    weights = write_backbone(Path('weights.pth'), 'ssd300')
    _, out, _ = make(shapes, '--out', 'mine', '--weights', 'weights.pth')
    static = Config.fromfile(commands(out)[0][1])
    backbone = MODELS.build(static.model.backbone)
    backbone.init_weights()
    for name, weight in backbone.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_from_scratch_nothing_is_loaded(make, shapes):
    _, out, _ = make(shapes, '--out', 'mine', '--weights', 'none')
    assert len(commands(out)) == 4
    text = Path(commands(out)[0][1]).read_text()
    assert 'init_cfg' not in text and 'trained_by' not in text


def test_experts_everywhere_are_asked_for(make, shapes):
    _, out, _ = make(shapes, '--out', 'mine', '--weights', 'none', '--experts', 'everywhere')
    condconv = commands(out)[1][1]
    assert '-condconv-e8-everywhere_' in condconv
    model = Config.fromfile(condconv).model
    assert (model.backbone.cond_cfg.start, model.bbox_head.cond_cfg.num_experts) == (1, 8)


def test_what_the_parser_offers_is_what_the_package_has():
    tool = runpy.run_path(str(CONFIGS.parent / 'tools' / 'new_config.py'))
    assert tool['DETECTORS'] == tuple(DETECTORS) and tool['PLACES'] == PLACES


def test_weights_of_another_backbone_are_one_error(make, shapes):
    write_backbone(Path('weights.pth'), 'ssdlite')
    code, _, error = make(shapes, '--out', 'mine', '--weights', 'weights.pth')
    assert code == 2 and error.startswith('error: ') and 'weights.pth' in error
    assert not Path('mine').exists()


@pytest.mark.long
@pytest.mark.parametrize('detector', DETECTORS)
def test_its_commands_train_and_test(make, run_tool, shapes, detector, capsys):
    _, out, _ = make(shapes, '--out', 'mine', '--detector', detector)
    make_drawn, train_drawn, train, train_routed, _, test = commands(out)
    short = [
        *('--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
        *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
        *('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False'),
    ]
    run_tool(*make_drawn, '--train', 16, '--val', 4, '--test', 4)
    for command in (train_drawn, train, train_routed):
        run_tool(*command, *short)
        if command is train_drawn:
            start = Path(Config.fromfile(train[1]).model.backbone.init_cfg.checkpoint)
            (start.parent / 'epoch_1.pth').rename(start)
    checkpoint = re.sub(r'epoch_\d+', 'epoch_1', test[2])
    # after an epoch nothing scores much
    options = ['test_dataloader.num_workers=0', 'model.test_cfg.score_thr=0.0']
    run_tool(*test[:2], checkpoint, '--cfg-options', *options)
    assert 'coco/bbox_mAP: ' in capsys.readouterr().out


@pytest.mark.parametrize(
    'args, says',
    [
        (['nowhere', '--out', 'mine'], 'error: the image folder nowhere does not exist\n'),
        (
            ['shapes', '--out', 'mine', '--classes', 'dog'],
            'error: no box of shapes can be used; classes',
        ),
        (['shapes', '--out', 'mine', '--name', 'a b'], 'error: a data set is named by letters'),
        (['shapes', '--out', 'mine', '--weights', 'none.pth'], "got 'none.pth', which is no file"),
        (['shapes', '--out', 'mine', '--detector', 'yolo'], "invalid choice: 'yolo'"),
        (['shapes'], 'the following arguments are required: --out'),
    ],
)
def test_bad_arguments_are_one_error(make, shapes, args, says):
    code, _, error = make(*args)
    assert code == 2 and re.search(says, error)
    assert not Path('mine').exists()
