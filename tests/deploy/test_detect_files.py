import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from condconv_det.deploy.detect_files import detect_files
from condconv_det.deploy.detector import Detector


@pytest.fixture(scope='module')
def detector(trained):
    """It finds a few boxes at most: drawing one takes longer than detecting all."""
    detector = Detector(*trained['routed'], device='cpu')
    detector.model.bbox_head.test_cfg.max_per_img = 8
    return detector


@pytest.fixture
def images(tmp_path):
    """Two images with one name, and a broken one."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / 'in' / name for name in ('x/a.png', 'y/a.png', 'y/b.jpg')]
    for path in paths[:2]:
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    paths[2].touch()
    return paths


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_goes_on_past_a_broken_image_and_reports_it(detector, images, tmp_path):
    out = tmp_path / 'out'
    written, failures = detect_files(detector, images[::-1], out, score_thr=0.7)
    assert written == [out / 'y/a.png', out / 'x/a.png']
    (broken, reason) = failures.popitem()
    assert broken == images[2] and reason.startswith(f'image {broken} cannot be read: its 0 bytes')
    assert files_in(out) == ['x/a.png', 'x/a.png.json', 'y/a.png', 'y/a.png.json']

    image = cv2.imread(str(images[0]))
    sample = detector.detect(image)
    assert json.loads((out / 'x/a.png.json').read_text()) == dict(
        image=str(images[0]),
        width=80,
        height=60,
        score_thr=0.7,
        objects=detector.objects(sample, 0.7),
    )
    assert np.array_equal(cv2.imread(str(written[1])), detector.draw(image, sample, 0.7))


def test_goes_on_past_a_picture_that_its_format_does_not_hold(detector, images, tmp_path):
    wide = images[0].with_name('wide.jpg')  # a PNG by another name
    wide.write_bytes(cv2.imencode('.png', np.zeros((4, 70000, 3), np.uint8))[1].tobytes())
    written, failures = detect_files(detector, [wide, images[0]], tmp_path / 'out')
    assert files_in(tmp_path / 'out') == ['a.png', 'a.png.json'] and len(written) == 1
    assert failures.keys() == {wide} and '70000x4' in failures[wide]


def test_an_image_that_the_pipeline_does_not_take_is_named(detector, images, tmp_path, monkeypatch):
    (resize,) = (step for step in detector.pipeline.transforms if hasattr(step, 'keep_ratio'))
    monkeypatch.setattr(resize, 'keep_ratio', True)  # which leaves no row of such an image
    wide = images[0].with_name('wide.png')
    cv2.imwrite(str(wide), np.zeros((1, 3000, 3), np.uint8))
    written, failures = detect_files(detector, [wide, images[0]], tmp_path / 'out')
    assert written == [tmp_path / 'out/a.png'] and failures.keys() == {wide}
    assert failures[wide].startswith(f'image {wide}: OpenCV') and '\n' not in failures[wide]


def test_images_are_never_written_over(detector, images):
    before = images[0].read_bytes()
    with pytest.raises(ValueError, match='a.png would be written over an image'):
        detect_files(detector, images[:1], images[0].parent)
    assert images[0].read_bytes() == before and files_in(images[0].parent) == ['a.png']


@pytest.mark.parametrize('name', ['a.png', 'a.png.json'])
def test_nor_is_any_other_file(detector, images, tmp_path, name):
    out = tmp_path / 'out'
    out.mkdir()
    (out / name).write_text('{"image": "of another program"}')
    with pytest.raises(ValueError, match=f'out/{name} is there, and not from here: choose another'):
        detect_files(detector, images[:1], out)
    assert files_in(out) == [name]


def test_a_folder_that_cannot_be_written_to_is_named(detector, images, tmp_path):
    (tmp_path / 'out').touch()
    with pytest.raises(OSError, match='folder .*out cannot be written to'):
        detect_files(detector, images, tmp_path / 'out')


def test_nothing_half_written_is_left(detector, images, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    detect_files(detector, images[:1], out)
    before = (out / 'a.png').read_bytes()

    def full_disk(path, content):
        with path.open('wb') as file:
            file.write(content[: len(content) // 2])
        raise OSError('no space left')

    monkeypatch.setattr(Path, 'write_bytes', full_disk)
    with pytest.raises(OSError, match='no space left'):
        detect_files(detector, images[:1], out, score_thr=0.9)
    assert files_in(out) == ['a.png', 'a.png.json'] and (out / 'a.png').read_bytes() == before
