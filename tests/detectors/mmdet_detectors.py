"""mmdet's own configs, and images to train and test what they build."""

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmengine.utils import get_installed_path

NO_DOWNLOAD = {'model.backbone.init_cfg': None}
# What mmdet's configs/scratch set: nothing is frozen, and no residual branch starts at zero, which
# would leave its convolutions without a gradient in the first step.
FROM_SCRATCH = {
    **NO_DOWNLOAD,
    'model.backbone.frozen_stages': -1,
    'model.backbone.norm_eval': False,
    'model.backbone.zero_init_residual': False,
}
# Tiny images are neither padded to the config's crop size nor resized.
AS_THEY_ARE = {'model.data_preprocessor.batch_augments': None}
# In heads that work on regions, each region is an example with kernels of its own.
FEW_REGIONS = {
    'model.train_cfg.rcnn.sampler.num': 16,
    'model.test_cfg.rpn.max_per_img': 16,
    'model.test_cfg.rcnn.max_per_img': 16,
}

# Every level of every detector has a positive: those of SSD and YOLOX get no gradient without one.
BOXES = torch.tensor(
    [
        [0.60, 0.60, 0.68, 0.68],
        [0.10, 0.10, 0.26, 0.26],
        [0.20, 0.50, 0.50, 0.80],
        [0.30, 0.05, 0.80, 0.55],
        [0.00, 0.00, 0.50, 0.80],
        [0.02, 0.02, 0.98, 0.98],
    ]
)


def mmdet_config(name: str, options: dict) -> Config:
    """A config of mmdet's, `name` from its configs/ on, with options by their dotted names."""
    cfg = Config.fromfile(f'{get_installed_path("mmdet")}/.mim/configs/{name}.py')
    cfg.merge_from_dict(options)
    return cfg


def two_images(side: int, with_masks: bool = False) -> dict:
    """What a data loader brings, with `BOXES` in both images of side x side pixels."""
    boxes, size = BOXES * side, (side, side)
    objects = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)))
    if with_masks:
        objects.masks = BitmapMasks.random(len(boxes), *size)
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=size,
            ori_shape=size,
            scale_factor=(1.0, 1.0),
            border=(0, side, 0, side),  # of CenterNet's crop
        ),
        gt_instances=objects,
        ignored_instances=InstanceData(bboxes=torch.zeros(0, 4)),
    )
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[sample.clone(), sample.clone()])
