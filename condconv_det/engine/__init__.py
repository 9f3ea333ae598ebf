"""Hooks for mmengine's runner, and how its optimizers see experts."""

from .broken_images_hook import SkipBrokenImagesHook
from .class_check_hook import ClassCheckHook
from .dataset_check_hook import DatasetCheckHook
from .epoch_seed_hook import EpochSeedHook
from .finite_loss_hook import FiniteLossHook
from .optim_wrapper_constructor import CondConvOptimWrapperConstructor
from .routing_hook import RoutingHook
from .zero_sum_start_hook import ZeroSumStartHook

__all__ = [
    'ClassCheckHook',
    'CondConvOptimWrapperConstructor',
    'DatasetCheckHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'RoutingHook',
    'SkipBrokenImagesHook',
    'ZeroSumStartHook',
]
