"""What a data set is read as, in few words."""

import pytest

from condconv_det.data.decode import decoded_size
from condconv_det.data.image_index import ImageIndex
from condconv_det.data.sources import read_source

BOX = [4, 6, 20, 12]


def read(files, name='', images='', **arguments):
    index = ImageIndex(files.root / images)
    return read_source(files.root / name, index, decoded_size, **arguments)


def boxes(source):
    """File name and class of each box; all have the same place."""
    names = {category['id']: category['name'] for category in source.data['categories']}
    images = {image['id']: image['file_name'] for image in source.data['images']}
    for annotation in source.data['annotations']:
        assert annotation['bbox'] == pytest.approx(BOX, abs=1e-3)
    assert [a['id'] for a in source.data['annotations']] == [
        *range(1, len(source.data['annotations']) + 1)
    ]
    return [(images[a['image_id']], names[a['category_id']]) for a in source.data['annotations']]


def splits(source):
    return {image['file_name']: source.splits.get(image['id']) for image in source.data['images']}


def kinds(source):
    return [fault.kind for fault in source.faults]
