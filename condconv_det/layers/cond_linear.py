"""The routed classifier (CondConv, https://arxiv.org/abs/1904.04971, section 4.1)."""

from mmengine.registry import MODELS
from torch import Tensor, nn

from condconv_det.ops import cond_linear

from .cond_conv2d import OWN_ROUTER
from .expert_fans import expert_fans, mark_expert_axis
from .expert_start import check_init, keep_experts, start_experts
from .router import Router, check_num_experts, check_routing
from .static_weights import load_kernel, load_router


# A direct subclass of nn.Linear, for mmengine's `init_cfg=dict(layer='Linear')`; see CondConv2d.
@MODELS.register_module()
class CondLinear(nn.Linear):
    """`nn.Linear` whose matrix is mixed for each example from `num_experts` matrices.

    Args:
        in_features, out_features, bias, device, dtype: as in `nn.Linear`; the bias is one for all
            experts.
        num_experts: E, at least 1.
        routing: arguments of the layer's `Router`, which looks at the layer's input.
        init: where experts start, see `CondConv2d`.

    Shapes:
        [B, Cin] -> [B, Cout]; weight: [E, Cout, Cin], bias: [Cout].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device=None,
        dtype=None,
        *,
        num_experts: int,
        routing: dict = OWN_ROUTER,
        init: str = 'paper',
    ) -> None:
        check_num_experts(num_experts)
        check_init('init', init)
        check_routing('routing', routing)
        if routing.get('hierarchical'):
            raise ValueError('routing: hierarchical routing is for backbones, not for CondLinear')
        super().__init__(in_features, out_features, bias, device, dtype)
        self.num_experts = num_experts
        experts = self.weight.new_empty(num_experts, *self.weight.shape)
        self.weight = mark_expert_axis(nn.Parameter(experts))
        self.init = init
        self.activation = routing.get('activation', OWN_ROUTER['activation'])
        self.reset_parameters()
        self.router = Router(in_features, num_experts, **routing).to(self.weight)

    def reset_parameters(self) -> None:
        with expert_fans():
            super().reset_parameters()
        if hasattr(self, 'init'):  # not yet while the plain layer is built
            start_experts(self)

    def forward(self, x: Tensor) -> Tensor:
        return cond_linear(x, self.router(x), self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        load_router(self.router, state_dict, prefix, expert_dim=3)
        load_kernel(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        mark_expert_axis(self.weight)  # may be another parameter, as in the methods below
        if prefix + 'weight' in state_dict:
            keep_experts(self)

    def _apply(self, fn, recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        mark_expert_axis(self.weight)
        return self

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        mark_expert_axis(self.weight)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, num_experts={self.num_experts}'
