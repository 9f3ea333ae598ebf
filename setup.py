import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / 'condconv_det'
VERSION = re.search(r"__version__ = '(.+)'", (PACKAGE / '__init__.py').read_text())[1]
# A package index has none of the files that the README links to: there the link's text stays.
DESCRIPTION = re.sub(r'\[([^]]+)\]\((?!https?://)[^)]+\)', r'\1', (ROOT / 'README.md').read_text())


class BuildWithMim(build_py):
    """Copies what OpenMMLab's tools look for in a package's .mim folder."""

    def run(self) -> None:
        if self.editable_mode:
            return
        built = Path(self.build_lib, PACKAGE.name)
        # pip builds in the source tree, where files that are gone since may lie from the last time
        shutil.rmtree(built, ignore_errors=True)
        super().run()
        for folder in ('configs', 'tools'):
            shutil.copytree(
                ROOT / folder,
                built / '.mim' / folder,
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        shutil.copy2(ROOT / 'model-index.yml', built / '.mim')


class EditableWithMim(editable_wheel):
    """Links the same into the source tree and leads OpenMMLab's tools there."""

    def run(self) -> None:
        mim = PACKAGE / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir()
        for name in ('configs', 'tools', 'model-index.yml'):
            (mim / name).symlink_to(Path('../..', name))
        # mim 0.3 and mmengine 0.10 look for a package beside its metadata, where an editable one is
        # not, and then at the first line of this file, seen from there.
        self._ensure_dist_info()
        Path(self.dist_info_dir, 'top_level.txt').write_text(f'{PACKAGE}\n{PACKAGE.name}\n')
        super().run()


setup(
    name='condconv_det',
    version=VERSION,
    description='CondConv backbones, heads and layers for MMDetection',
    long_description=DESCRIPTION,
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='CondConv, conditional convolution, mixture of experts, object detection, MMDetection',
    project_urls={'Paper': 'https://arxiv.org/abs/1904.04971'},
    classifiers=[
        'Development Status :: 4 - Beta',  # not yet trained on COCO, hardly on a GPU
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: POSIX :: Linux',
        # those that the tests were run on, see docs/measured/reliability.md
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10,<3.14',  # mmengine 0.10 uses pkgutil.find_loader, gone in 3.14
    packages=find_packages(include=['condconv_det*']),
    cmdclass=dict(build_py=BuildWithMim, editable_wheel=EditableWithMim),
    install_requires=[
        'torch>=2.1',
        'torchvision>=0.16',
        'mmdet>=3.3,<3.4',
        'mmengine>=0.10.7,<0.11',
        'numpy>=1.26',
        'pillow',
        'pycocotools',
        'safetensors',
        'setuptools>=70.1,<81',  # mmengine 0.10 imports pkg_resources
        'tqdm',
    ],
    extras_require={
        # mmcv without compiled operators; leave it out where mmcv itself is installed.
        'lite': ['mmcv-lite>=2.1,<2.2'],
        'classification': ['mmpretrain>=1.2,<1.3'],
        'app': ['gradio>=6.31,<7'],
        # tools/export.py, which needs torch >= 2.14, and tools/test.py --backend onnx
        'deploy': ['onnx>=1.23', 'onnxruntime>=1.23', 'onnxscript>=0.7'],
        # tools/test.py --backend openvino
        'openvino': ['openvino>=2026.4'],
        'test': [
            'hypothesis',
            'playwright',
            'pytest',
            'pytest-xdist',
            'ruff',
            'tensorboard',
            'timm',
        ],
    },
)
