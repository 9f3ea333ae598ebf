"""A stop at the first loss that is not finite, and where it comes from."""

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from condconv_det.weights.fit import unwrapped


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training at the first loss that is NaN or infinite and names the layer it comes from.

    The loss is checked before the optimizer steps, so that the weights are still those that made
    it: the batch runs forward once more, until a layer's output is not finite. (Of several
    processes none does, for the others would not take part: there, only weights are named.) A GPU
    is not waited for: the loss is copied while backward runs. Gradients may overflow, as they do
    under dynamic loss scaling.

    A checkpoint whose weights or norm statistics are not finite is not written.

    Takes the place of mmdet's `CheckInvalidLossHook`, which looks at every 50th loss, a step late.

    Raises:
        FloatingPointError: at that loss or that checkpoint; names the last checkpoint.
    """

    priority = 'LOW'  # once EMA has put its weights into the checkpoint, before that is written

    def before_train(self, runner: Runner) -> None:
        self._copied = torch.cuda.Event() if torch.cuda.is_available() else None
        wrapper = runner.optim_wrapper
        wrapper.update_params = self._keeping_loss(wrapper.update_params)
        wrapper.optimizer.register_step_pre_hook(lambda *_: self._check_loss(runner))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._batch = data_batch

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._check_loss(runner)  # where gradients accumulate or a scaler skipped the step

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        trained = {name for name, _ in unwrapped(runner.model).named_parameters()}
        for name, value in checkpoint['state_dict'].items():
            if name in trained or name.endswith(('running_mean', 'running_var')):
                if not value.isfinite().all():
                    raise FloatingPointError(
                        f'{name} is not finite after iteration {checkpoint["meta"]["iter"]}: no '
                        f'checkpoint is written; {_last_checkpoint(runner)}'
                    )

    def _keeping_loss(self, update_params: Callable) -> Callable:
        @wraps(update_params)
        def keep_and_update(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            self._loss = loss.detach().to('cpu', non_blocking=loss.is_cuda)
            if self._copied is not None:
                self._copied.record()
            update_params(loss, *args, **kwargs)

        return keep_and_update

    def _check_loss(self, runner: Runner) -> None:
        if self._copied is not None:
            self._copied.synchronize()
        if math.isfinite(self._loss):
            return
        raise FloatingPointError(
            f'the loss is {self._loss.item()} at iteration {runner.iter + 1}: '
            f'{self._origin(runner)}; {_last_checkpoint(runner)}'
        )

    def _origin(self, runner: Runner) -> str:
        model = unwrapped(runner.model)
        for name, parameter in model.named_parameters():
            if not parameter.isfinite().all():
                return f'parameter {name} is not finite'
        if runner.distributed:
            return 'all parameters are finite; train in one process to learn the layer'
        with torch.no_grad(), runner.optim_wrapper.optim_context(model):
            batch = model.data_preprocessor(self._batch, True)
            return first_non_finite(model, lambda: model._run_forward(batch, mode='loss'))


def first_non_finite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """Names the first layer of `model` that a call of `forward` brings to a value not finite."""

    def check(name: str, layer: nn.Module, inputs: tuple, output: Any) -> None:
        for what, values in (('input', inputs), ('output', output)):
            if not _all_finite(values):
                raise _Found(f'the {what} of {name} ({type(layer).__name__}) is not finite')

    hooks = [
        layer.register_forward_hook(partial(check, name))
        for name, layer in model.named_modules()
        if layer is not model  # its output is the loss
    ]
    try:
        forward()
    except _Found as found:
        return str(found)
    finally:
        for hook in hooks:
            hook.remove()
    return 'the outputs of all layers are finite, the loss is not'


class _Found(Exception):
    pass


def _all_finite(values: Any) -> bool:
    leaves = tree_flatten(values)[0]
    return all(
        leaf.isfinite().all()
        for leaf in leaves
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    )


def _last_checkpoint(runner: Runner) -> str:
    path = find_latest_checkpoint(runner.work_dir)
    return f'the last checkpoint is {path}' if path else 'no checkpoint was written before'
