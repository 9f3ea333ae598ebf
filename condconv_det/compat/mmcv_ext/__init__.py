"""Stands in for mmcv's compiled operators where mmcv-lite is installed.

Needed by: mmcv-lite 2.x, a pure wheel without `mmcv._ext`, on which `mmcv.ops` and most of mmdet
do not import. Delete this folder once a compiled mmcv can be taken for granted.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

MODULE_NAME = 'mmcv._ext'


class MmcvExtFinder(MetaPathFinder):
    """Finds `mmcv._ext` in ext.py of this folder, and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != MODULE_NAME:
            return None
        # A file location gives the spec a loader and an origin: mmcv and mmengine ask pkgutil for
        # the loader, and a traceback shows where the operator really lives.
        return spec_from_file_location(fullname, Path(__file__).with_name('ext.py'))


def install() -> None:
    """Let `import mmcv._ext` fall back on torchvision's kernels; calling it again changes nothing.

    The finder goes last, so that a compiled `mmcv._ext` is always found first.
    """
    if not any(isinstance(finder, MmcvExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MmcvExtFinder())
