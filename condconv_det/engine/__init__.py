"""Hooks for mmengine's runner, how its optimizers see experts, and a metric of groups."""

from .broken_images_hook import SkipBrokenImagesHook
from .class_check_hook import ClassCheckHook
from .dataset_check_hook import DatasetCheckHook
from .epoch_seed_hook import EpochSeedHook
from .finite_loss_hook import FiniteLossHook
from .grouped_coco_metric import GroupedCocoMetric
from .optim_wrapper_constructor import CondConvOptimWrapperConstructor
from .routing_hook import RoutingHook

__all__ = [
    'ClassCheckHook',
    'CondConvOptimWrapperConstructor',
    'DatasetCheckHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'GroupedCocoMetric',
    'RoutingHook',
    'SkipBrokenImagesHook',
]
