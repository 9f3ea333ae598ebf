"""The splits that data.yaml and lists of images have."""

import pytest

from condconv_det.data.image_index import ImageIndex
from condconv_det.data.yolo_splits import read_splits

NAMES = ('a/1', 'a/2', 'b/1', 'b/2')
KEPT = {'a/1': 'train', 'a/2': 'train', 'b/1': 'val', 'b/2': 'val'}


@pytest.fixture
def read(files):
    """The splits by name, and the faults as text."""
    for name in NAMES:
        files.image(f'images/{name}.jpg')

    def read(images=''):
        faults = []
        found = read_splits(files.root, ImageIndex(files.root / images), faults)
        splits = {path.with_suffix('').as_posix(): split for path, split in found.items()}
        return {n.removeprefix('images/'): s for n, s in splits.items()}, list(map(str, faults))

    return read


@pytest.mark.parametrize(
    'yaml',
    [
        'train: images/a\nval: images/b',
        'train: [images/a]\nvalidation: [images/b]\ntest:',
        'path: images\ntrain: a\nval: b',
        'path: ../datasets/source\ntrain: ./images/a/\nval: images/b',
        'path: /content/source\ntrain: ../images/a\nval: ../images/b',
        'train: [images/a/1.txt, lists/2.txt]\nval: images/b',
        r'train: images\a' '\n' r'val: images\b',
    ],
)
def test_data_yaml_names_folders_and_lists(files, read, yaml):
    files.write('images/a/1.txt', './1.jpg\n')
    files.write('lists/2.txt', 'C:\\data\\images\\a\\2.jpg\n')
    files.write('data.yaml', yaml)
    files.write('args.yaml', 'train: true\nval: true')
    assert read() == (KEPT, [])


def test_several_sets_in_one_folder_have_splits_of_their_own(files, read):
    for name in 'ab':
        files.write(f'images/{name}/data.yaml', 'train: first.txt\nval: second.txt')
        files.write(f'images/{name}/first.txt', './1.jpg')
        files.write(f'images/{name}/second.txt', './2.jpg')
    assert read() == ({'a/1': 'train', 'a/2': 'val', 'b/1': 'train', 'b/2': 'val'}, [])


def test_folders_may_be_relative_to_those_of_the_images(files, read):
    files.write('yaml/data.yaml', 'train: a\nval: b')
    assert read('images') == (KEPT, [])


@pytest.mark.parametrize('above', ['', '/content/data/', './', '../'])
def test_without_it_lists_of_images_are_the_splits(files, read, above):
    files.write('data.yaml', 'names: [cat]')
    files.write('lists/Train.txt', f'{above}images/a/1.jpg\n{above}images/a/2.jpg\n')
    files.write('lists/valid.txt', f'{above}images/b/1.jpg\n\n{above}images/b/2.jpg')
    files.write('lists/notes.txt', 'images/a/1.jpg')
    assert read() == (KEPT, [])


def test_lines_that_name_no_image_are_counted(files, read):
    files.write('train.txt', 'images/a/1.jpg\nimages/a/8.jpg\nimages/a/9.jpg\n')
    assert read() == (
        {'a/1': 'train'},
        ['source: missing image: 2 lines of train.txt, the first images/a/8.jpg'],
    )


def test_an_image_of_two_splits_is_in_the_first_and_counted(files, read):
    files.write('data.yaml', 'val: images\ntrain: images/a')
    assert read() == (
        KEPT,
        ['source: image in several splits: 2 images, the first images/a/1.jpg; used in the first'],
    )


@pytest.mark.parametrize(
    'name, text, says',
    [
        ('data.yaml', 'train: images/a\nval: /content/b', '/content/b has no image'),
        ('data.yaml', 'train: images/a\nval: true', 'True has no image'),
        ('train.txt', 'images/a/9.jpg\n', 'train.txt has no image'),
    ],
)
def test_what_leads_nowhere_keeps_no_split_and_is_named_unless_folders_are_splits(
    files, read, name, text, says
):
    files.write(name, text)
    says = f'source: splits not kept: {says}; all images are dealt out anew'
    assert read() == ({}, [says])
    files.image('train/c.jpg')
    files.image('val/d.jpg')
    assert read() == ({}, [])
