"""Files that were damaged at random: each is read, or refused by the one error that says so.

Those in corpus/ are the seeds; a mutation that once broke a reader belongs there too.
"""

import json
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset

from condconv_det.compat.data_errors import AnnotationError, ImageError
from condconv_det.data.check_coco import check_coco, read_coco
from condconv_det.data.check_images import check_images
from condconv_det.data.coco_faults import level
from condconv_det.data.image_size import loaded_size
from condconv_det.deploy.images import decode_image

CORPUS = Path(__file__).parent / 'corpus'
JSONS = sorted(CORPUS.glob('*.json'))
IMAGES = sorted(set(CORPUS.iterdir()) - set(JSONS))
MAX_PIXELS = 1_000_000  # so that a damaged header costs no gigabyte
ODD_BYTES = [b'\0', b'\xff', b'\xff\xd9', b'\xff\xda', b'"', b'{', b']', b',', b'-', b'9' * 20]
ODD_VALUES = [
    *(None, True, False, 0, 1, -1, 2**63, 10**400, 0.5, -0.0, 1e308, float('nan'), float('inf')),
    *('', '1', 'a.jpg', '../..', '\0', '\ud800', 'x' * 300, [], {}, [[]], [1, 2, 3, 4]),
]


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four cuts, repetitions, insertions or changes of bytes."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content) + 1)
        # damage to headers is the more interesting
        start = min(start, rng.randrange(200)) if rng.random() < 0.5 else start
        end = min(len(content), start + rng.choice([0, 1, 2, 8, 64, len(content)]))
        part = rng.choice(
            [b'', content[start:end] * 2, rng.choice(ODD_BYTES), rng.randbytes(end - start)]
        )
        content = content[:start] + part + content[end:]
    return content


def damage_values(data: object, rng: random.Random) -> object:
    """One to three values of a tree replaced, removed, repeated or exchanged."""
    for _ in range(rng.randint(1, 3)):
        places = [(None, None), *walk(data)]
        parent, key = rng.choice(places)
        if parent is None:
            if rng.random() < 0.02:
                data = rng.choice(ODD_VALUES)
        elif rng.random() < 0.2:
            del parent[key]
        elif isinstance(parent, list) and rng.random() < 0.3:
            parent.append(json.loads(json.dumps(parent[key])))
        else:
            other, index = rng.choice(places)
            value = other[index] if other is not None and rng.random() < 0.3 else None
            parent[key] = rng.choice(ODD_VALUES) if value is None else json.loads(json.dumps(value))
    return data


def walk(data: object):
    """Each place in a tree, as what holds it and its key there."""
    keys = data.keys() if isinstance(data, dict) else range(len(data)) if is_list(data) else ()
    for key in list(keys):
        yield data, key
        yield from walk(data[key])


def is_list(data: object) -> bool:
    return isinstance(data, list)


def damaged_json(seed: int) -> bytes:
    rng = random.Random(seed)
    content = rng.choice(JSONS).read_bytes()
    if seed % 4 == 0:
        return damage_bytes(content, rng)
    return json.dumps(damage_values(json.loads(content), rng)).encode()


def read_annotations(path: Path) -> None:
    """Checks, mends, and loads with mmdet what has no errors."""
    try:
        data = read_coco(path)
    except ValueError as error:
        assert f'{path} is not json' in str(error)
        with pytest.raises(AnnotationError, match='is not COCO json'):
            load(path)
        return
    found = check_coco(data)
    if any(level(fault, True) == 'error' for fault in found.faults):
        try:
            load(path)
        except AnnotationError as error:
            assert path.name in str(error)
    else:
        load(path)
    str([str(fault) for fault in found.faults]).encode()
    if isinstance(data, dict) and isinstance(data.get('images'), list):
        check_images(data, CORPUS)
    if found.mended is not None:
        left = check_coco(found.mended).faults
        assert not [fault for fault in left if level(fault, True) == 'error']
        path.write_text(json.dumps(found.mended))
        load(path)


def load(path: Path) -> None:
    CocoDataset(
        ann_file=str(path),
        metainfo=dict(classes=('cell', 'spot')),
        data_prefix=dict(img=''),
        pipeline=[],
        serialize_data=False,  # which would collect garbage each time
    )


def read_image(path: Path) -> None:
    """By its header as the checker does, and whole as the detector and the training do."""
    try:
        width, height = loaded_size(path)
        assert width > 0 and height > 0
    except (OSError, ValueError):
        pass
    try:
        pixels = decode_image(path.read_bytes(), 'it', MAX_PIXELS)
    except ImageError as error:
        assert 'image it cannot be read: ' in str(error)
        if 'pixels are too many' in str(error):
            return
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3
    with suppress(ImageError):
        LoadImageFromFile().transform(dict(img_path=str(path)))


def read_all(folder: Path, seeds: range) -> None:
    path = folder / 'mutated.json'
    for seed in seeds:
        path.write_bytes(damaged_json(seed))
        try:
            read_annotations(path)
        except Exception as error:
            raise AssertionError(f'seed {seed}: {damaged_json(seed)!r}') from error
    for seed in seeds:
        rng = random.Random(seed)
        original = rng.choice(IMAGES)
        image = folder / original.name
        image.write_bytes(damage_bytes(original.read_bytes(), rng))
        try:
            read_image(image)
        except Exception as error:
            raise AssertionError(f'{original.name}, seed {seed}') from error


@pytest.mark.parametrize('path', JSONS, ids=lambda path: path.stem)
def test_the_corpus_of_annotations_is_read(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    read_annotations(copy)


@pytest.mark.parametrize('path', IMAGES, ids=lambda path: path.name)
def test_the_corpus_of_images_is_read(path):
    assert decode_image(path.read_bytes(), 'it').shape[:2] == loaded_size(path)[::-1]


def test_mutated_files_are_read_or_refused(tmp_path, capsys):
    read_all(tmp_path, range(40))


@pytest.mark.long
@pytest.mark.parametrize('start', range(0, 10_000, 1_000))
def test_ten_thousand_mutated_files_are_read_or_refused(start, tmp_path, capsys):
    read_all(tmp_path, range(start, start + 1_000))
