"""The CondConv layer (https://arxiv.org/abs/1904.04971, section 3)."""

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from condconv_det.ops import cond_conv2d, same_padding

from .expert_start import check_init
from .experts import Experts
from .router import Router, check_activation, check_num_experts, check_routing

OWN_ROUTER = dict(activation='sigmoid')


# nn.Conv2d is a direct base because mmengine's `init_cfg=dict(layer='Conv2d')` looks no
# further up than the direct bases.
@MODELS.register_module()
class CondConv2d(Experts, nn.Conv2d):
    """`nn.Conv2d` whose kernel is mixed for each example from `num_experts` kernels.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias, padding_mode,
            device, dtype: as in `nn.Conv2d`; the bias is one for all experts.
        padding: as in `nn.Conv2d`; 'same' is TensorFlow's, at any stride.
        num_experts: E, at least 1.
        routing: arguments of the layer's own `Router`; None if routing weights come with each call.
        init: where experts start, one by one ('paper') or as 'one-kernel', see `expert_start`.
        activation: that of the `Router` whose weights come with each call; 'sigmoid' by default.

    A state dict with a plain kernel loads as experts that mix to it, see `static_weights`.

    Shapes:
        x [B, Cin, H, W], routing [B, E] -> [B, Cout, H', W'].
        weight: [E, Cout, Cin/groups, kh, kw], bias: [Cout].

    Raises:
        ValueError: an argument is out of range, or called without routing weights and without a
            router.
    """

    convolve = staticmethod(cond_conv2d)  # a copy that is exported sets its own

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        device=None,
        dtype=None,
        *,
        num_experts: int,
        routing: dict | None = OWN_ROUTER,
        init: str = 'paper',
        activation: str | None = None,
    ) -> None:
        check_num_experts(num_experts)
        check_init('init', init)
        if routing is not None:
            check_routing('routing', routing)
        if activation is not None:
            check_activation(activation)
            if routing is not None:
                raise ValueError(
                    f'activation is of a router outside the layer, with routing=None: '
                    f'write routing=dict(activation={activation!r}), got routing={routing}'
                )
        if isinstance(padding, str) and padding not in ('same', 'valid'):
            raise ValueError(
                f"padding must be an integer, a pair, 'same' or 'valid', got {padding!r}"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0 if isinstance(padding, str) else padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        if padding == 'same':
            self.padding = padding
        activation = activation or (routing or {}).get('activation', OWN_ROUTER['activation'])
        self.make_experts(num_experts, init, activation)
        self.router = None
        if routing is not None:
            self.router = Router(in_channels, num_experts, **routing).to(self.weight)

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        num_experts: int,
        routing: dict | None = OWN_ROUTER,
        init: str = 'paper',
        activation: str | None = None,
    ) -> 'CondConv2d':
        """A routed layer for the place of a plain one: its geometry, with weights of its own.

        Raises:
            ValueError: the convolution computes something other than `nn.Conv2d`, or mmcv's
                `Conv2dAdaptivePadding`, TensorFlow's "same".
        """
        from .plain_convolutions import PLAIN_CONVOLUTIONS, Conv2dAdaptivePadding

        if type(conv) not in PLAIN_CONVOLUTIONS:
            raise ValueError(f'experts can take the place of a plain convolution, got {conv}')
        return cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            'same' if isinstance(conv, Conv2dAdaptivePadding) else conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            conv.weight.device,
            conv.weight.dtype,
            num_experts=num_experts,
            routing=routing,
            init=init,
            activation=activation,
        )

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        if routing is None:
            if self.router is None:
                raise ValueError(
                    f'{self} was built with routing=None, so it has no router: '
                    f'call it with routing weights [B, {self.num_experts}]'
                )
            if self.router.hierarchical:
                raise ValueError(
                    f'{self} has a hierarchical router: it works in the backbones of this package, '
                    f'which hand on the routing weights of the router before it'
                )
            routing = self.router(x)
        padding = self.padding
        if self.padding_mode != 'zeros':
            x, padding = self._pad(x), 0
        return self.convolve(
            x, routing, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _pad(self, x: Tensor) -> Tensor:
        if self.padding == 'same':
            sides = same_padding(x.shape[-2:], self.kernel_size, self.stride, self.dilation)
        else:
            vertical, horizontal = self.padding
            sides = (horizontal, horizontal, vertical, vertical)
        return F.pad(x, sides, self.padding_mode)
