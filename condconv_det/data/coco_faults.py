"""The faults that COCO json and its images can have, and what MMDetection makes of each."""

from typing import NamedTuple

from .fault import Fault


class Kind(NamedTuple):
    """A kind of fault.

    Levels: 'error', MMDetection fails, or learns or measures something wrong; 'warning', it goes on
    with less than the file has; 'note', it copes.
    """

    level: str
    in_training: str  # level for a file that is only trained on
    effect: str  # with mmdet 3.3.0 and pycocotools 2.0
    mend: str = ''  # what becomes of it in a mended file; '' is left to a person


LEFT_OUT = 'left out'
NUMBERED_ANEW = 'numbered anew'
_WITH_BOXES = 'left out with its boxes'

KINDS = {
    'not COCO json': Kind('error', 'error', 'does not load'),
    'byte-order mark': Kind('error', 'error', 'does not load', LEFT_OUT),
    'no usable image': Kind('error', 'error', 'nothing to train on'),
    'image size missing': Kind('error', 'error', 'KeyError or TypeError on loading', "the file's"),
    'image incomplete': Kind(
        'error', 'error', 'KeyError or TypeError on loading, or boxes left out', _WITH_BOXES
    ),
    'image listed twice': Kind(
        'error',
        'error',
        'the last entry gets the boxes of all',
        'equal entries become one; different ones are left out with their boxes',
    ),
    'file listed twice': Kind(
        'warning', 'warning', 'its boxes count as background in the other entry'
    ),
    'category incomplete': Kind('error', 'error', 'KeyError or TypeError on loading'),
    'category listed twice': Kind('error', 'error', 'boxes get the label of another class'),
    'empty category of the same name': Kind(
        'error', 'error', 'boxes get the label of another class', LEFT_OUT
    ),
    'classes in another order': Kind('error', 'error', 'boxes get the names of other classes'),
    'boxes of another form': Kind('error', 'error', 'boxes lie elsewhere, or are left out'),
    'boxes in parts of the image': Kind(
        'error', 'error', 'left out of training, missed in evaluation', 'multiplied by its sides'
    ),
    'annotation incomplete': Kind('error', 'error', 'KeyError or TypeError on loading', LEFT_OUT),
    'annotation without id': Kind(
        'error', 'error', 'KeyError or TypeError on loading', NUMBERED_ANEW
    ),
    'annotation id twice': Kind('error', 'error', 'AssertionError on loading', NUMBERED_ANEW),
    'annotation id unusable': Kind(
        'error', 'note', 'a box found counts as missed, or ValueError', NUMBERED_ANEW
    ),
    'image id of another type': Kind('error', 'error', 'left out', "the image's"),
    'category id of another type': Kind('error', 'error', 'left out', "the category's"),
    'unknown image': Kind('warning', 'warning', 'left out', LEFT_OUT),
    'unknown category': Kind('warning', 'warning', 'left out', LEFT_OUT),
    'box missing': Kind('error', 'error', 'fails on loading', "the mask's"),
    'box not numeric': Kind(
        'error', 'error', 'fails on loading, left out, or a loss of NaN', LEFT_OUT
    ),
    'box with negative sides': Kind(
        'error', 'error', 'left out of training, missed in evaluation', LEFT_OUT
    ),
    'box outside the image': Kind(
        'error', 'error', 'left out of training, missed in evaluation', LEFT_OUT
    ),
    'box without area': Kind(
        'warning', 'warning', 'left out of training, missed in evaluation', LEFT_OUT
    ),
    'box beyond the border': Kind(
        'warning', 'warning', 'evaluated with a box that cannot be found', 'clipped'
    ),
    'box under a pixel': Kind('note', 'note', 'left out of training'),
    'area missing': Kind('error', 'error', 'KeyError or TypeError on loading', "the box's"),
    'area not positive': Kind('warning', 'warning', 'left out of training', "the box's"),
    'area differs': Kind(
        'warning', 'note', 'counts as small, medium or large by mistake', "the box's"
    ),
    'iscrowd missing': Kind('error', 'note', 'KeyError in the first evaluation', '0'),
    'iscrowd not 0 or 1': Kind('error', 'error', 'any text, even "0", is a crowd', '1 or 0'),
    'image file missing': Kind('error', 'warning', 'not loaded', _WITH_BOXES),
    'image file broken': Kind('error', 'warning', 'not loaded', _WITH_BOXES),
    'image size differs': Kind('error', 'error', 'boxes lie elsewhere', _WITH_BOXES),
    'image without boxes': Kind(
        'note', 'note', 'trained on as background, unless filter_cfg or RandomCrop leaves it out'
    ),
    'category without boxes': Kind('note', 'note', 'never learned'),
    'category ids with holes': Kind('note', 'note', 'none: labels are numbered through'),
}


def level(fault: Fault, evaluated: bool) -> str:
    """'error', 'warning' or 'note'.

    Args:
        evaluated: whether the file is also validated or tested on, not only trained on.
    """
    kind = KINDS[fault.kind]
    return kind.level if evaluated else kind.in_training
