import json
import os
import re
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from condconv_det.data.shapes import make_shapes

CONFIGS = Path(__file__).parents[2] / 'configs'
SSD = CONFIGS / 'shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
CLASSIFIER = CONFIGS / 'shapes/mobilenet-v1-0.5_1xb32-10e_shapes-crops.py'


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / 'data' / 'shapes', dict(train=8, val=2, test=2), size=64)
    return tmp_path / 'data' / 'shapes'


@pytest.fixture
def train(root):
    return root / 'annotations' / 'train.json'


@pytest.fixture
def check(run_tool, capsys):
    """Runs the command line; returns exit code, output and errors."""

    def check(*args):
        with pytest.raises(SystemExit) as exited:
            run_tool('check_dataset.py', *args)
        return exited.value.code, *capsys.readouterr()

    return check


def spoil(path, count=1, **values):
    data = json.loads(path.read_text())
    for entry in data['annotations'][:count]:
        entry.update(values)
    path.write_text(json.dumps(data))


def test_a_whole_set_has_no_errors(root, train, check):
    code, out, _ = check(train, '--images', root / 'train', '--decode')
    assert code == 0
    assert out.splitlines()[0] == str(train)
    assert '0 errors, 0 warnings' in out


def test_faults_are_grouped_capped_and_counted(root, train, check):
    spoil(train, 7, bbox=[90, 5, 9, 9])
    spoil(train, 1, iscrowd='no')
    (root / 'train' / '000003.jpg').unlink()
    code, out, _ = check(train, '--images', root / 'train', '--show', 4)
    assert code == 1
    assert 'error: box outside the image: 7 (mmdet: left out of training' in out
    assert out.count('bbox [90, 5, 9, 9]') == 4
    assert '  ... and 3 more' in out
    assert 'annotation 1 of "000000.jpg": iscrowd "no"' in out
    assert "'000003.jpg': no " in out
    assert '9 errors' in out.splitlines()[-1]


def test_a_truncated_image_is_found_by_decoding(root, train, check):
    path = root / 'train' / '000002.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    assert check(train, '--images', root / 'train')[0] == 0
    code, out, _ = check(train, '--images', root / 'train', '--decode')
    assert code == 1 and 'image file broken: 1' in out


def test_without_a_folder_of_images_it_says_that_none_was_looked_at(root, train, check):
    (root / 'train' / '000002.jpg').unlink()
    code, out, _ = check(train)
    assert code == 0 and out.splitlines()[-1] == 'no image was looked at: say --images FOLDER'
    assert 'no image was looked at' not in check(train, '--images', root / 'train')[1]
    code, _, error = check(train, '--decode')
    assert code == 2 and '--decode needs --images FOLDER' in error


def test_a_mended_file_has_no_errors_and_the_original_stays(root, train, check):
    spoil(train, 3, bbox=[90, 5, 9, 9])
    spoil(train, 1, id=2)
    (root / 'train' / '000003.jpg').write_bytes(b'')
    before, out = train.read_bytes(), root / 'mended.json'
    assert check(train, '--images', root / 'train', '--fix', out)[0] == 1
    assert check(out, '--images', root / 'train')[0] == 0
    assert train.read_bytes() == before
    assert len(json.loads(out.read_text())['images']) == 7
    assert [path.name for path in root.glob('.*')] == []


@pytest.mark.parametrize('link', [None, os.link, os.symlink])
def test_the_original_is_never_written_over(root, train, check, link):
    out = train
    if link:
        out = root / 'other.json'
        link(train, out)
    before = train.read_bytes()
    for option in ('--fix', '--json'):
        code, _, error = check(train, option, out)
        assert code == 2 and 'is the file to check: name another' in error
    assert train.read_bytes() == before


def test_what_a_person_must_decide_is_not_mended(root, train, check):
    data = json.loads(train.read_text())
    data['categories'][1]['id'] = data['categories'][0]['id']
    train.write_text(json.dumps(data))
    code, out, error = check(train, '--fix', root / 'mended.json')
    assert code == 2 and 'category listed twice' in out and 'for a person' in error
    assert not (root / 'mended.json').exists()
    assert check(train, '--fix', root / 'mended.json', '--json', root / 'report.json')[0] == 2
    faults = json.loads((root / 'report.json').read_text())
    assert 'category listed twice' in [fault['kind'] for fault in faults]


def test_a_byte_order_mark_is_named_and_mended(root, train, check):
    train.write_text(train.read_text(), encoding='utf-8-sig')
    mended = root / 'mended.json'
    code, out, _ = check(train, '--images', root / 'train', '--fix', mended)
    assert code == 1 and 'error: byte-order mark: 1' in out and '1 error,' in out
    assert check(mended)[0] == 0
    assert len(COCO(mended).imgs) == 8


def test_sizes_that_a_json_lacks_are_those_of_the_images(root, train, check):
    data = json.loads(train.read_text())
    for image in data['images'][:3]:
        del image['width'], image['height']
    train.write_text(json.dumps(data))
    mended = root / 'mended.json'
    code, out, _ = check(train, '--images', root / 'train', '--fix', mended)
    assert code == 1 and 'error: image size missing: 3' in out and 'incomplete' not in out
    assert check(mended, '--images', root / 'train')[0] == 0
    assert [(i['width'], i['height']) for i in COCO(mended).dataset['images']] == [(64, 64)] * 8
    assert 'error: image incomplete: 3' in check(train)[1]


@pytest.mark.parametrize('content', ['', '[]', '{"images": 3}', '{"images": [], "a": NaN'])
def test_what_is_not_coco_json_is_one_error(root, train, check, content):
    train.write_text(content)
    code, out, _ = check(train, '--images', root / 'train')
    assert code == 1 and 'error: not COCO json: 1' in out


def test_a_missing_file_is_named(root, check):
    nowhere, config = root / 'nowhere.json', root / 'mine.py'
    config.write_text(
        f"val_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='{nowhere}'))"
    )
    for source, says in (nowhere, ''), (config, f', which {config} names,'):
        code, out, error = check(source)
        assert (code, out, error) == (2, '', f'error: {nowhere}{says} does not exist\n')


@pytest.mark.parametrize('option', ['--fix', '--json'])
def test_a_folder_that_is_not_there_is_named_before_anything_is_checked(root, train, check, option):
    out = root / 'nowhere' / 'out.json'
    code, printed, error = check(train, option, out)
    assert code == 2 and printed == ''
    assert error == f'error: {out} cannot be written: there is no folder {out.parent}\n'


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(root, train, check):
    (root / 'folder').mkdir()
    code, _, error = check(train, '--json', root / 'folder')
    assert code == 2 and error.startswith(f'error: {root / "folder"} cannot be written: ')


def test_an_image_is_not_written_over(root, train, check):
    image = root / 'train' / '000001.jpg'
    before = image.read_bytes()
    code, _, error = check(train, '--images', root / 'train', '--json', image)
    assert code == 2 and f'{image} is an image: name another' in error
    assert image.read_bytes() == before


def test_mended_file_and_report_need_two_names(root, train, check):
    out = root / 'out.json'
    code, _, error = check(train, '--fix', out, '--json', root / 'annotations' / '..' / 'out.json')
    assert code == 2 and f'--fix and --json would both write {out}: name another' in error
    assert not out.exists()


def test_a_single_error_is_counted_as_one(root, train, check):
    spoil(train, iscrowd='no')
    code, out, _ = check(train)
    assert code == 1 and out.splitlines()[-2].startswith('1 error, 0 warnings, ')


@pytest.mark.parametrize(
    'text, says',
    [
        ('model = dict(', '.*mine.py is not a config file: .*never closed'),
        ('model = dict(depth=depth)', "config .*mine.py: NameError: name 'depth' is not defined"),
        ("custom_imports = dict(imports=['no_such'])", 'Failed to import custom modules .*no_such'),
        ('train_dataloader = dict(batch_size=4)', "config .*mine.py: AttributeError: .*'dataset'"),
        ('model = dict()', 'config .*mine.py has no COCO json to check'),
    ],
)
def test_a_config_that_names_nothing_to_check_is_one_error(root, check, text, says):
    config = root / 'mine.py'
    config.write_text(text)
    code, out, error = check(config)
    assert code == 2 and out == '' and re.match(f'error: {says}', error)


def test_a_json_that_a_config_names_is_not_written_over(root, check):
    val = Path('data/shapes/annotations/val.json')
    before = val.read_bytes()
    code, out, error = check(SSD, '--json', val)
    assert code == 2 and f'{val} is the file to check: name another' in error
    assert val.read_bytes() == before and out == ''


def test_all_sets_of_a_config_are_checked_each_for_its_use(root, check):
    for split in ('train', 'val'):
        spoil(root / 'annotations' / f'{split}.json', iscrowd=None)
    report = root / 'report.json'
    code, out, _ = check(SSD, '--json', report)
    assert code == 1
    assert [line for line in out.splitlines() if line.endswith('.json')] == [
        f'data/shapes/annotations/{split}.json' for split in ('train', 'val', 'test')
    ]
    levels = {
        (Path(fault['file']).stem, fault['level'])
        for fault in json.loads(report.read_text())
        if fault['kind'] == 'iscrowd missing'
    }
    assert levels == {('train', 'note'), ('val', 'error')}


def test_a_set_that_is_trained_and_validated_on_is_checked_for_both(root, check):
    spoil(root / 'annotations' / 'train.json', iscrowd=None)
    config = root / 'same.py'
    dataset = "dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'))"
    config.write_text(
        f'_base_ = {str(SSD)!r}\nval_dataloader = test_dataloader = dict(dataset={dataset})'
    )
    code, out, _ = check(config)
    assert code == 1 and out.count('.json\n') == 1 and 'error: iscrowd missing' in out


def test_sets_of_other_formats_are_named_and_passed_over(root, check):
    config = root / 'mixed.py'
    config.write_text(
        f"_base_ = {str(SSD)!r}\ntrain_dataloader = dict(dataset=dict(type='VOCDataset'))"
    )
    code, out, _ = check(config)
    assert code == 0 and 'train: VOCDataset does not read COCO json' in out
    assert 'annotations/val.json\n' in out

    code, out, error = check(CLASSIFIER)
    assert 'train: CustomDataset does not read COCO json' in out
    assert code == 2 and f'{CLASSIFIER} has no COCO json to check' in error
