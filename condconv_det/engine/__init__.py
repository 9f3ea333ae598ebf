"""Hooks for mmengine's runner."""

from .class_check_hook import ClassCheckHook
from .epoch_seed_hook import EpochSeedHook
from .finite_loss_hook import FiniteLossHook
from .routing_hook import RoutingHook

__all__ = ['ClassCheckHook', 'EpochSeedHook', 'FiniteLossHook', 'RoutingHook']
