"""Other people's checkpoints into ours, and none of them halfway."""

from . import loading  # noqa: F401  makes mmengine load whole or not at all
from .conversion import Conversion, convert, convert_file
from .sources import SOURCES
from .static import static_file, static_weights

__all__ = [
    'SOURCES',
    'Conversion',
    'convert',
    'convert_file',
    'static_file',
    'static_weights',
]
