"""Hooks for mmengine's runner."""

from .class_check_hook import ClassCheckHook

__all__ = ['ClassCheckHook']
