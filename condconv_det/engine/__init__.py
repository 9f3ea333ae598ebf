"""Hooks for mmengine's runner."""

from .broken_images_hook import SkipBrokenImagesHook
from .class_check_hook import ClassCheckHook
from .dataset_check_hook import DatasetCheckHook
from .routing_hook import RoutingHook

__all__ = ['ClassCheckHook', 'DatasetCheckHook', 'RoutingHook', 'SkipBrokenImagesHook']
