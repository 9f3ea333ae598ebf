"""The versions that the tests pass with; tools/doctor.py reads this file without the package."""

from typing import NamedTuple


class Tested(NamedTuple):
    """Of a distribution, the oldest and newest version with which every test passes."""

    oldest: str
    newest: str
    needed_by: str = ''  # an extra of setup.py; '' is the package itself


# constraints-torch2.1.txt and constraints.txt pin them
TESTED = {
    'torch': Tested('2.1.2', '2.14.1'),
    'torchvision': Tested('0.16.2', '0.29.1'),
    'numpy': Tested('1.26.4', '2.4.6'),
    'mmengine': Tested('0.10.7', '0.10.7'),
    'mmdet': Tested('3.3.0', '3.3.0'),
    'mmcv-lite': Tested('2.1.0', '2.1.0', 'lite'),
    'opencv-python': Tested('4.11.0.86', '5.0.0.93'),
    'pillow': Tested('12.3.0', '12.3.0'),
    'pycocotools': Tested('2.0.11', '2.0.11'),
    'safetensors': Tested('0.8.0', '0.8.0'),
    'setuptools': Tested('80.10.2', '80.10.2'),
    'mmpretrain': Tested('1.2.0', '1.2.0', 'classification'),
    'gradio': Tested('6.31.0', '6.31.0', 'app'),
    'onnx': Tested('1.23.2', '1.23.2', 'deploy'),
    'onnxruntime': Tested('1.32.0', '1.32.0', 'deploy'),
    'onnxscript': Tested('0.7.2', '0.7.2', 'deploy'),
    'openvino': Tested('2026.4.1', '2026.4.1', 'openvino'),
    'timm': Tested('1.0.31', '1.0.31', 'test'),
}
# in the place of mmdet and mmengine; see docs/measured/reliability.md
FORKS = {
    'mmdet': ('onedl-mmdetection', Tested('3.5.1', '3.5.1')),
    'mmengine': ('onedl-mmengine', Tested('0.10.12', '0.10.12')),
}
PYTHON = Tested('3.10', '3.12')
