"""mmdet's tools/train.py, run after condconv_det so that it needs no compiled mmcv."""

from condconv_det.compat.mmdet_tools import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('train.py')
