"""Learning rates for experts."""

import inspect
import logging
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch import nn

from condconv_det.analysis.configs import type_name
from condconv_det.layers import Experts
from condconv_det.layers.expert_fans import has_expert_axis

# Whose step does not grow with the gradient.
ADAM_KIND = ('Adam', 'AdamW', 'Adamax', 'NAdam', 'RMSprop')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class CondConvOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor with one `paramwise_cfg` more, `expert_lr_mult`.

    A number multiplies the learning rate of the experts of all routed layers, on top of what the
    other options make of it; routers, norms and biases, which all experts share, keep theirs.

    'matched' sets rate, weight decay and `eps` so that the mixed kernel moves and decays as a plain
    one does, while all routing weights are alike (sigmoid 1/2, softmax 1/E). There, an expert's
    gradient, and so the `eps` beside it, is the kernel's times the routing weight, and a step of
    all experts adds up to:

    | | kind of Adam | SGD |
    |---|---|---|
    | sigmoid | E/2 plain steps: rate 2/E, decay E/2 | E/4: rate 4/E, decay E/4 |
    | softmax | one plain step: 1, 1 | 1/E: rate E, decay 1/E |

    Three things stay unmatched: weight decay that is added to the gradient of a kind of Adam (the
    log warns of it); `clip_grad`, as gradients of experts are of another size (the log says so);
    and a schedule's `eta_min`, one rate for all, where `eta_min_ratio` keeps each its own.
    OneCycleLR sets one rate for all, its `eta_max`: with it the option changes no rate.

    Raises:
        ValueError: `expert_lr_mult` is neither above 0 nor 'matched', the optimizer has no `lr` or
            is none that can be matched, the network has no experts that train, or of the
            `custom_keys` one for routers yields to a longer one.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        if 'expert_lr_mult' not in self.paramwise_cfg:
            return
        mult = self.paramwise_cfg['expert_lr_mult']
        if mult != 'matched' and not (isinstance(mult, int | float) and mult > 0):
            raise ValueError(
                f"paramwise_cfg.expert_lr_mult must be above 0 or 'matched', got {mult!r}"
            )
        if self.base_lr is None:
            raise ValueError('paramwise_cfg.expert_lr_mult multiplies optimizer.lr, which is unset')
        if mult == 'matched':
            self._check_matched()

    def _check_matched(self) -> None:
        self.kind = type_name(self.optimizer_cfg['type'])
        if self.kind not in ('SGD', *ADAM_KIND):
            raise ValueError(
                f"paramwise_cfg.expert_lr_mult='matched' knows SGD, {', '.join(ADAM_KIND)}, got "
                f'{self.kind}: give the number by which the rate of experts is multiplied'
            )
        defaults = inspect.signature(OPTIMIZERS.get(self.kind)).parameters
        self.decay = defaults['weight_decay'].default if self.base_wd is None else self.base_wd
        if self.kind in ADAM_KIND:
            self.eps = self.optimizer_cfg.get('eps', defaults['eps'].default)
        # weights shrink by the learning rate alone; else decay is added to the gradient
        decoupled = self.kind == 'AdamW' or self.optimizer_cfg.get('decoupled_weight_decay')
        if self.decay and self.kind in ADAM_KIND and not decoupled:
            print_log(
                f"expert_lr_mult='matched' does not match the weight decay of {self.kind}: take "
                'AdamW',
                'current',
                logging.WARNING,
            )
        if self.optim_wrapper_cfg.get('clip_grad'):
            print_log(
                'clip_grad is set: gradients of experts are of another size than that of one '
                "kernel, so that 'matched' is only approximate",
                'current',
                logging.INFO,
            )

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        super().add_params(params, module, prefix, **kwargs)
        if prefix:
            return  # a part of the network; the whole comes last
        self._check_router_keys(module)
        if 'expert_lr_mult' not in self.paramwise_cfg:
            return
        experts = [group for group in params if has_expert_axis(group['params'][0])]
        if not experts:
            raise ValueError(
                f'{type(module).__name__} has no experts that train: leave out '
                f'paramwise_cfg.expert_lr_mult or set a cond_cfg'
            )
        mult = self.paramwise_cfg['expert_lr_mult']
        layers = {
            id(parameter): layer
            for layer in module.modules()
            if isinstance(layer, Experts)
            for parameter in layer.parameters()  # pruned or normalised, experts have other names
        }
        for group in experts:
            rate = mult
            if mult == 'matched':
                rate = self._match(group, layers[id(group['params'][0])])
            group['lr'] = group.get('lr', self.base_lr) * rate

    def _check_router_keys(self, network: nn.Module) -> None:
        for name, parameter in network.named_parameters():
            keys = [key for key in self.paramwise_cfg.get('custom_keys', {}) if key in f'.{name}']
            taken_by = max(sorted(keys), key=len, default='')  # as mmengine decides it
            of_router = [key for key in keys if 'router' in key]
            if parameter.requires_grad and of_router and taken_by not in of_router:
                raise ValueError(
                    f'paramwise_cfg.custom_keys: {of_router[0]!r} does not reach {name}, for '
                    f'{taken_by!r} comes first; give a longer key for routers, such as '
                    "'.router.fc.'"
                )

    def _match(self, group: dict, layer: nn.Module) -> float:
        """Sets decay and `eps` of a layer's experts; returns what multiplies their rate."""
        inverse = 2 if layer.activation == 'sigmoid' else layer.num_experts  # of a routing weight
        rate = inverse / layer.num_experts
        if self.kind == 'SGD':
            rate *= inverse
        else:
            group['eps'] = group.get('eps', self.eps) / inverse
        # weights decay by rate times decay
        group['weight_decay'] = group.get('weight_decay', self.decay) / rate
        return rate
