"""Learning rates for experts."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from condconv_det.layers.expert_fans import has_expert_axis


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class CondConvOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor with one `paramwise_cfg` more, `expert_lr_mult`.

    It multiplies the learning rate of the experts of all routed layers, on top of what the other
    options make of it; routers, norms and biases, which all experts share, keep theirs. With
    sigmoid routing at 0.5 an optimiser whose step does not grow with the gradient, such as Adam,
    moves the mixed kernel E/2 times as far as a plain one: `expert_lr_mult=2/E` takes that back.
    Weight decay, which AdamW and SGD multiply by the learning rate, shrinks with it.

    Raises:
        ValueError: `expert_lr_mult` is not above 0, the optimizer has no `lr`, or the network has
            no experts that train.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        if 'expert_lr_mult' not in self.paramwise_cfg:
            return
        mult = self.paramwise_cfg['expert_lr_mult']
        if not isinstance(mult, int | float) or not mult > 0:
            raise ValueError(f'paramwise_cfg.expert_lr_mult must be above 0, got {mult!r}')
        if self.base_lr is None:
            raise ValueError('paramwise_cfg.expert_lr_mult multiplies optimizer.lr, which is unset')

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        super().add_params(params, module, prefix, **kwargs)
        if prefix or 'expert_lr_mult' not in self.paramwise_cfg:
            return  # a part of the network; the whole comes last
        experts = [group for group in params if has_expert_axis(group['params'][0])]
        if not experts:
            raise ValueError(
                f'{type(module).__name__} has no experts that train: leave out '
                f'paramwise_cfg.expert_lr_mult or set a cond_cfg'
            )
        for group in experts:
            lr = group.get('lr', self.base_lr)
            group['lr'] = lr * self.paramwise_cfg['expert_lr_mult']
