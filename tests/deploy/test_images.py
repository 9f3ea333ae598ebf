from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from condconv_det.compat.data_errors import ImageError
from condconv_det.deploy.images import decode_image, find_images


@pytest.fixture
def folder(tmp_path):
    for name in ('b.jpg', 'a.PNG', 'sub/c.webp', 'notes.txt', '[1].jpg', '._b.jpg'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    'pattern, names',
    [
        ('', ['[1].jpg', 'a.PNG', 'b.jpg']),
        ('b.jpg', ['b.jpg']),
        ('[1].jpg', ['[1].jpg']),
        ('*.jpg', ['[1].jpg', 'b.jpg']),
        ('**/*.webp', ['sub/c.webp']),
    ],
)
def test_finds_a_file_a_folder_or_a_glob(folder, pattern, names):
    assert find_images(str(folder / pattern)) == [folder / name for name in names]


@pytest.mark.parametrize('pattern', ['nowhere', 'nowhere/*.jpg', 'notes.txt'])
def test_no_image_is_an_error_that_names_the_pattern(folder, pattern):
    with pytest.raises(
        FileNotFoundError, match=f'there is no image in {folder / pattern}'.replace('*', r'\*')
    ):
        find_images(str(folder / pattern))


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp', '.tif', '.ppm'])
def test_pixels_are_those_that_mmdet_trains_on(tmp_path, suffix):
    path = tmp_path / f'image{suffix}'
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    assert np.array_equal(decode_image(path.read_bytes(), 'it'), cv2.imread(str(path)))


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (40, 30)).save(tmp_path / 'image.jpg', exif=exif)
    assert decode_image((tmp_path / 'image.jpg').read_bytes(), 'it').shape == (40, 30, 3)


@pytest.mark.parametrize(
    'mode, suffix, expected',
    [
        ('P', '.png', [0, 0, 255]),
        ('RGBA', '.png', [0, 0, 255]),
        ('CMYK', '.jpg', [0, 0, 255]),
        ('L', '.png', [76] * 3),
        ('LA', '.png', [76] * 3),
        ('1', '.png', [0] * 3),
    ],
)
def test_pixels_of_any_mode_become_blue_green_red(tmp_path, mode, suffix, expected):
    path = tmp_path / f'image{suffix}'
    red = Image.new('RGB', (40, 30), 'red')
    red.convert(mode, dither=Image.Dither.NONE).save(path)
    pixels = decode_image(path.read_bytes(), 'it')
    assert pixels.shape == (30, 40, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels - np.float32(expected)).max() < 5


def test_sixteen_bits_become_eight(tmp_path):
    path = str(tmp_path / 'image.png')
    cv2.imwrite(path, np.full((30, 40, 3), (0x1234, 0x5678, 0x9ABC), np.uint16))
    assert decode_image(open(path, 'rb').read(), 'it')[0, 0].tolist() == [0x12, 0x56, 0x9A]


def test_of_several_pictures_in_a_file_the_first_counts(tmp_path):
    frames = [Image.new('RGB', (40, 30), colour) for colour in ('red', 'blue')]
    frames[0].save(tmp_path / 'image.tif', save_all=True, append_images=frames[1:])
    assert decode_image((tmp_path / 'image.tif').read_bytes(), 'it')[0, 0].tolist() == [0, 0, 255]


def test_a_gif_is_refused_whatever_its_name():
    content = BytesIO()
    frames = [Image.new('P', (40, 30), colour) for colour in (0, 1)]
    frames[0].save(content, 'GIF', save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match='image a.png cannot be read: its .* none of BMP, JPEG'):
        decode_image(content.getvalue(), 'a.png')


def test_pixels_that_opencv_does_not_know_are_refused():
    content = BytesIO()
    Image.new('F', (40, 30)).save(content, 'TIFF')
    with pytest.raises(ImageError, match='OpenCV cannot decode a TIFF of mode F'):
        decode_image(content.getvalue(), 'it')


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('part', [0.3, 0.6, 0.95])
def test_a_truncated_image_is_refused(suffix, part):
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    content = cv2.imencode(suffix, pixels)[1].tobytes()
    with pytest.raises(ImageError, match='image it cannot be read: '):
        decode_image(content[: int(part * len(content))], 'it')


def test_what_pillow_reads_and_opencv_does_not_is_refused():
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    content = bytearray(cv2.imencode('.png', pixels)[1])
    content[-13] ^= 1  # the checksum of the pixels
    with pytest.raises(ImageError, match='image it cannot be read: '):
        decode_image(bytes(content), 'it')


@pytest.mark.parametrize(
    'content, says', [(b'', 'its 0 bytes are none of BMP'), (b'hello', 'its 5 bytes are none of')]
)
def test_what_is_no_image_is_refused(content, says):
    with pytest.raises(ImageError, match=f'image it cannot be read: {says}'):
        decode_image(content, 'it')


@pytest.mark.parametrize('height, says', [(6_000, '20000x6000 pixels'), (20_000, '400000000')])
def test_too_many_pixels_are_refused_by_the_header_alone(height, says):
    with pytest.raises(ImageError, match=f'image it cannot be read: .*{says}'):
        decode_image(b'P6 20000 %d 255 ' % height, 'it')
