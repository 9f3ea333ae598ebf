"""`mmcv.ops`, and what it runs on: ours, or mmcv's own operators where those are installed."""

import importlib
from pathlib import Path

import pytest

from condconv_det.compat.mmcv_ext import install

install()
ops = importlib.import_module('mmcv.ops')
ext = importlib.import_module('mmcv._ext')
COMPILED = Path(ext.__file__).suffix != '.py'
needs_ours = pytest.mark.skipif(COMPILED, reason="mmcv's own operators are installed")
