"""Hooks for mmengine's runner."""

from .class_check_hook import ClassCheckHook
from .routing_hook import RoutingHook

__all__ = ['ClassCheckHook', 'RoutingHook']
