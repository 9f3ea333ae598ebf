"""mmdet's tools/train.py, or mmpretrain's for a classifier, run after condconv_det so that neither
needs compiled mmcv."""

from functools import partial

from condconv_det.command_line import run
from condconv_det.compat.openmmlab_tools import run_openmmlab_tool

if __name__ == '__main__':
    run(partial(run_openmmlab_tool, 'train.py'), again=('--resume',))
