"""The command line that looks at routing, on a small set of shapes."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from condconv_det.analysis import routing_records, routing_report
from condconv_det.data.crops import crop_objects
from condconv_det.data.shapes import make_shapes

CONFIGS = Path(__file__).parents[2] / 'configs' / 'shapes'
CONFIG = CONFIGS / 'ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
STATIC = CONFIGS / 'ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
CLASSIFIER = CONFIGS / 'mobilenet-v1-0.5-condconv-e8_1xb32-10e_shapes-crops.py'
CHANNELS = '(64,128,256,128,64)'
SMALL = [
    'test_dataloader.num_workers=0',
    'model.backbone.widen_factor=0.25',
    'model.neck.in_channels=(64,128,256)',
    f'model.neck.out_channels={CHANNELS}',
    f'model.bbox_head.in_channels={CHANNELS}',
]


def save_network(config, path, options):
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    init_default_scope(cfg.default_scope)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('routing')
    shapes = folder / 'data' / 'shapes'
    files = make_shapes(shapes, dict(test=12), size=128)
    crop_objects(files['test'], shapes / 'test', folder / 'data' / 'shapes-crops')
    channels = [64, 128, 256, 128, 64]
    small = {
        'model.backbone.widen_factor': 0.25,
        'model.neck.in_channels': channels[:3],
        'model.neck.out_channels': channels,
        'model.bbox_head.in_channels': channels,
    }
    save_network(CONFIG, folder / 'detector.pth', small)
    save_network(STATIC, folder / 'static.pth', small)
    save_network(CLASSIFIER, folder / 'classifier.pth', {})
    (folder / 'a_file').write_text('')
    (folder / 'full').mkdir()
    (folder / 'full' / 'mine.txt').write_text('kept')
    return folder


@pytest.fixture(autouse=True)
def _in_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.mark.long
def test_detector_by_class_and_domain(run_tool, capsys):
    args = ('--out', 'detector', '--group-by', 'domain', '--cfg-options', *SMALL)
    run_tool('analyze_routing.py', CONFIG, 'detector.pth', *args)
    out = capsys.readouterr().out
    assert 'wrote detector/index.html' in out

    summary = json.loads(Path('detector/summary.json').read_text())
    assert summary['images'] == 12
    domains = summary['groups']['domain']
    assert list(domains) == ['daylight', 'night', 'thermal', 'textile', 'sketch', 'fog']
    assert set(domains.values()) == {2}
    annotations = json.loads(Path('data/shapes/annotations/test.json').read_text())
    names = {category['id']: category['name'] for category in annotations['categories']}
    pairs = {(a['image_id'], names[a['category_id']]) for a in annotations['annotations']}
    held = [name for _, name in pairs]
    assert summary['groups']['class'] == {name: held.count(name) for name in names.values()}
    assert list(summary['layers'])[0] == 'backbone.layer4.1.depthwise_conv.conv'
    assert list(summary['layers'])[-1] == summary['depths']['late'] == 'neck.extra_layers.1.1.conv'
    assert len(list(Path('detector').glob('*.png'))) == 9
    for name in summary['layers']:
        assert name in out


@pytest.mark.long
def test_one_class_is_said_and_not_compared(run_tool, capsys):
    annotations = json.loads(Path('data/shapes/annotations/test.json').read_text())
    for annotation in annotations['annotations']:
        annotation['category_id'] = annotations['categories'][0]['id']
    one = Path('data/shapes/annotations/one.json')
    one.write_text(json.dumps(annotations))
    option = 'test_dataloader.dataset.ann_file=annotations/one.json'
    args = ('detector.pth', '--out', 'one', '--cfg-options', *SMALL, option)
    run_tool('analyze_routing.py', CONFIG, *args)
    out = capsys.readouterr().out
    assert 'Not compared by class: all 12 images with a class have the same one, circle.' in out
    assert 'variance' not in out and not Path('one/separation.png').exists()


@pytest.mark.long
def test_classifier_by_class(run_tool, capsys):
    option = 'test_dataloader.num_workers=0'
    args = ('classifier.pth', '--out', 'classifier', '--cfg-options', option)
    run_tool('analyze_routing.py', CLASSIFIER, *args)
    summary = json.loads(Path('classifier/summary.json').read_text())
    crops = json.loads(Path('data/shapes-crops/test/crops.json').read_text())['crops']
    assert summary['groups'] == {'class': dict(sorted(crops.items()))}
    assert summary['images'] == sum(crops.values())
    assert summary['depths']['late'] == 'head.fc'


def fails(run_tool, *args):
    """The message with which the tool ends; it leaves no file or folder behind."""
    before = sorted(Path().rglob('*'))
    with pytest.raises(SystemExit) as error:
        run_tool('analyze_routing.py', *args)
    assert sorted(Path().rglob('*')) == before
    return str(error.value)


@pytest.mark.parametrize(
    'config, checkpoint, options, says',
    [
        (CONFIG, 'nowhere.pth', [], 'checkpoint nowhere.pth does not exist'),
        (CONFIG, 'a_file', [], 'checkpoint a_file is not a whole checkpoint'),
        (
            CONFIG,
            'static.pth',
            [],
            'static.pth does not fit SingleStageDetector .* it lacks .*router',
        ),
        (CONFIG, 'classifier.pth', [], 'classifier.pth does not fit .* the network has no head.fc'),
        (
            CONFIG,
            'detector.pth',
            ['model.backbone.cond_cfg.num_experts=4'],
            'detector.pth does not fit .* shapes differ in backbone.layer4',
        ),
        (STATIC, 'static.pth', [], 'SingleStageDetector has no routed layers'),
        (
            CONFIG,
            'detector.pth',
            ['test_dataloader.dataset.ann_file=nowhere.json'],
            'nowhere.json does not exist, which test_dataloader of config .*shapes.py names; paths '
            'count from the working directory, /',
        ),
        (CONFIG, 'detector.pth', ['test_dataloader=None'], 'shapes.py has no test_dataloader'),
        (
            CONFIG,
            'detector.pth',
            ['test_dataloader.dataset.metainfo.classes=(circle,square,triangle,star,moon)'],
            'test.json lacks 1 of the 5 classes that the config names: moon; '
            'it has circle, cross, square, star, triangle',
        ),
        (
            CONFIG,
            'detector.pth',
            ['test_dataloader.dataset.metainfo.classes=(circle,square)'],
            'CondConvSSDHead has num_classes=5, but the data set names 2 classes: circle, square',
        ),
        ('nowhere.py', 'detector.pth', [], 'config nowhere.py does not exist'),
        (
            CONFIG,
            'detector.pth',
            ['model.backbone.type=Unknown'],
            'config .*shapes.py: KeyError: .Unknown is not in',
        ),
        (
            CONFIG,
            'detector.pth',
            ['test_dataloader.dataset.type=Unknown'],
            'config .*shapes.py: KeyError: .Unknown is not in',
        ),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(run_tool, config, checkpoint, options, says):
    args = (config, checkpoint, '--out', 'failed', '--cfg-options', *SMALL, *options)
    message = fails(run_tool, *args)
    assert message.startswith('error: ')
    assert re.search(says, message), message


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_broken_image_is_one_line(run_tool, num_workers, tmp_path):
    shutil.copytree('data', tmp_path / 'data')
    image = sorted((tmp_path / 'data/shapes/test').iterdir())[7]
    image.write_bytes(b'')
    options = [
        *SMALL[1:],
        f'test_dataloader.num_workers={num_workers}',
        f'test_dataloader.persistent_workers={bool(num_workers)}',
        f'test_dataloader.dataset.data_root={tmp_path}/data/shapes/',
    ]
    message = fails(run_tool, CONFIG, 'detector.pth', '--out', 'failed', '--cfg-options', *options)
    command = 'check_dataset.py .*test.json --images .*test/ --decode --fix OUT.json'
    assert re.fullmatch(f'error: image {image} cannot be read: .+{command}.+', message)


@pytest.mark.parametrize(
    'key, says',
    [
        ('weather', "12 of the 12 images of .*test.json have no 'weather' .* domain, file_name"),
        ('file_name', "'file_name' has 12 values in .*test.json; at most 9 make groups"),
    ],
)
def test_an_attribute_that_makes_no_groups_is_named(run_tool, monkeypatch, key, says):
    monkeypatch.setattr(routing_records, 'MAX_ATTRIBUTE_VALUES', 9)
    args = ('--out', 'failed', '--group-by', key, '--cfg-options', *SMALL)
    message = fails(run_tool, CONFIG, 'detector.pth', *args)
    assert re.search(says, message), message


@pytest.mark.parametrize(
    'key, says',
    [
        ('class', 'images are always grouped by their class; a key of that name'),
        ('time/place', "a key to group images by has up to 50 letters, .* got 'time/place'"),
        ('time' * 13, "a key to group images by has up to 50 letters, .* got 'timetime"),
    ],
)
def test_a_key_that_can_name_no_grouping_is_refused_before_the_network_is_built(
    run_tool, monkeypatch, key, says
):
    monkeypatch.setattr(routing_records, 'build_model', None)
    message = fails(run_tool, CONFIG, 'detector.pth', '--out', 'failed', '--group-by', key)
    assert re.match(f'error: {says}', message), message


def test_a_classifiers_folders_have_no_attributes(run_tool):
    args = ('classifier.pth', '--out', 'failed', '--group-by', 'domain')
    assert "'domain' of a COCO json, which CustomDataset has not" in fails(
        run_tool, CLASSIFIER, *args
    )


@pytest.mark.parametrize(
    'out, says',
    [
        ('full', 'full exists and is not an empty folder'),
        ('a_file', 'a_file exists and is not an empty folder'),
        ('a_file/out', 'a_file/out cannot be written: Not a directory'),
    ],
)
def test_a_folder_that_cannot_be_written_is_named_before_the_network_runs(
    run_tool, monkeypatch, out, says
):
    monkeypatch.setattr(routing_report, 'record_routing', None)
    assert says in fails(run_tool, CONFIG, 'detector.pth', '--out', out)


def test_a_failure_midway_leaves_nothing(run_tool, monkeypatch):
    def no_space(*_):
        raise OSError('No space left on device')

    monkeypatch.setattr(routing_report, 'plot_separation', no_space)
    args = ('--out', 'failed', '--cfg-options', *SMALL)
    assert fails(run_tool, CONFIG, 'detector.pth', *args) == 'error: No space left on device'
