import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'condconv_det/__init__.py').read_text())[1]

setup(
    name='condconv_det',
    version=VERSION,
    description='CondConv backbones, heads and layers for MMDetection',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',  # mmengine 0.10 uses pkgutil.find_loader, gone in 3.14
    packages=find_packages(include=['condconv_det*']),
    install_requires=[
        'torch>=2.1',
        'torchvision>=0.16',
        'mmdet>=3.3,<3.4',
        'mmengine>=0.10.7,<0.11',
        'numpy>=1.26',
        'pillow',
        'pycocotools',
        'setuptools<81',  # mmengine 0.10 imports pkg_resources
    ],
    extras_require={
        # mmcv without compiled operators; leave it out where mmcv itself is installed.
        'lite': ['mmcv-lite>=2.1,<2.2'],
        'test': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff', 'timm'],
    },
)
