"""Trained models at work: folded, frozen, shrunk, exported; on image files and on a web page."""

from condconv_det.ops.compiled_mixing import compile_mixing

from .cast_experts import cast_experts
from .export import Export, ExportError, export_detector
from .exportable import ExportableDetector
from .fold_batch_norm import fold_batch_norm
from .freeze_routing import freeze_routing, mean_routing
from .merge_experts import merge_experts
from .write import SUFFIXES

__all__ = [
    'SUFFIXES',
    'Export',
    'ExportError',
    'ExportableDetector',
    'cast_experts',
    'compile_mixing',
    'export_detector',
    'fold_batch_norm',
    'freeze_routing',
    'mean_routing',
    'merge_experts',
]
