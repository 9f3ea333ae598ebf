"""What today's stack needs in order to run; each part goes when its reason does."""

import warnings

from . import mmcv_ext


def install() -> None:
    """Makes mmdet run on torchvision's kernels, load and resume safely, take annotations for data
    and name broken files; repeatable."""
    # mmengine 0.10 needs it; setup.py holds setuptools back for as long.
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
    mmcv_ext.install()
    # mmdet does not import before the line above.
    from . import checkpoints, data_errors, external_configs, fused_optimizers, plain_files, resume

    data_errors.install()
    plain_files.install()
    checkpoints.install()
    resume.install()
    external_configs.install()
    fused_optimizers.install()
