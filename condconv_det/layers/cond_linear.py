"""The routed classifier (CondConv, https://arxiv.org/abs/1904.04971, section 4.1)."""

from mmengine.registry import MODELS
from torch import Tensor, nn

from condconv_det.ops import cond_linear

from .cond_conv2d import OWN_ROUTER
from .expert_start import check_init
from .experts import Experts
from .router import Router, check_num_experts, check_routing


# nn.Linear is a direct base for mmengine's `init_cfg=dict(layer='Linear')`; see CondConv2d.
@MODELS.register_module()
class CondLinear(Experts, nn.Linear):
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
        self.make_experts(num_experts, init, routing.get('activation', OWN_ROUTER['activation']))
        self.router = Router(in_features, num_experts, **routing).to(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return cond_linear(x, self.router(x), self.weight, self.bias)
