import mmcv
import pytest
from PIL import Image

from condconv_det.data.image_size import loaded_size


@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_size_is_that_of_the_image_as_mmdet_loads_it(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / 'photo.jpg'
    Image.new('RGB', (60, 40)).save(path, exif=exif)
    height, width = mmcv.imread(path).shape[:2]
    assert loaded_size(path) == (width, height) == ((60, 40) if orientation < 5 else (40, 60))
