"""Routing weights from a feature map (CondConv, https://arxiv.org/abs/1904.04971, section 3)."""

import inspect

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import functional as F

from condconv_det.ops.autocast import without_autocast
from condconv_det.ops.tracing import is_exporting

ACTIVATIONS = ('sigmoid', 'softmax')


def pool(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Each channel's mean, [B, C, H, W] -> [B, C]."""
    if not torch.is_grad_enabled() or is_exporting():
        return x.mean((2, 3), dtype=dtype)
    # the gradient of `mean` would be divided place by place
    return x.sum((2, 3), dtype=dtype) / (x.shape[2] * x.shape[3])


class Router(nn.Module):
    """Global average pool, linear, sigmoid: the routing weights of each example.

    Pooling, linear layers and activation run in float32 even under autocast or in a half-precision
    model: a routing weight scales a whole kernel.

    Args:
        in_channels: C of the input.
        num_experts: E, at least 1.
        activation: 'sigmoid' (the paper's) or 'softmax'.
        temperature: divides the logits; above 1 makes routing softer.
        hidden_channels: width of a hidden layer with ReLU, None for none.
        hierarchical: whether the previous router's weights are part of the input, as in the paper's
            ablation; the first router of a network sees zeros in their place.

    Shapes:
        x [B, C, H, W] or, already pooled, [B, C]; previous [B, E] or None, read only by a
        hierarchical router -> [B, E], in the type of the router's own weights.

    Raises:
        ValueError: an argument is out of range, or the input of another shape.
    """

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        activation: str = 'sigmoid',
        temperature: float = 1.0,
        hidden_channels: int | None = None,
        hierarchical: bool = False,
    ) -> None:
        super().__init__()
        check_num_experts(num_experts)
        check_activation(activation)
        if not temperature > 0:
            raise ValueError(f'temperature must be above 0, got {temperature}')
        if hidden_channels is not None and hidden_channels < 1:
            raise ValueError(f'hidden_channels must be at least 1 or None, got {hidden_channels}')
        self.in_channels = in_channels
        self.activation = activation
        self.temperature = temperature
        self.hierarchical = hierarchical
        if hierarchical:
            in_channels += num_experts
        self.hidden = nn.Linear(in_channels, hidden_channels) if hidden_channels else None
        self.fc = nn.Linear(hidden_channels or in_channels, num_experts)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot weights and zero biases, so that sigmoid routing starts near 0.5."""
        for linear in filter(None, (self.hidden, self.fc)):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        if isinstance(x, Proxy):
            raise ValueError(
                'torch.fx cannot trace routed layers: leave out efficient_conv_bn_eval, '
                'or list parts without experts in it'
            )
        if x.dim() not in (2, 4) or x.shape[1] != self.in_channels:
            raise ValueError(
                f'x must be [B, C, H, W] or [B, C] with C = {self.in_channels} channels, '
                f'got shape {tuple(x.shape)}'
            )
        fc = self.fc
        own_dtype = fc.weight.dtype
        # at least float32; not torch.promote_types, which torch 2.1 cannot compile
        dtype = torch.float64 if own_dtype == torch.float64 else torch.float32
        with without_autocast(fc.weight):
            logits = pool(x, dtype) if x.dim() == 4 else x.to(dtype)
            if self.hierarchical:
                if previous is None:
                    previous = logits.new_zeros(logits.shape[0], fc.out_features)
                logits = torch.cat([logits, previous.to(dtype)], 1)
            if self.hidden is not None:
                logits = F.relu(_linear(self.hidden, logits))
            logits = _linear(fc, logits)
            if self.temperature != 1:
                logits = logits / self.temperature
            routing = logits.sigmoid() if self.activation == 'sigmoid' else logits.softmax(-1)
        return routing if dtype == own_dtype else routing.to(own_dtype)

    def extra_repr(self) -> str:
        hierarchical = ', hierarchical' if self.hierarchical else ''
        return f'activation={self.activation}, temperature={self.temperature}{hierarchical}'


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if weight.dtype != x.dtype:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    return F.linear(x, weight, bias)


def check_num_experts(num_experts: int) -> None:
    """Raises ValueError unless num_experts is an integer of at least 1."""
    if not isinstance(num_experts, int) or isinstance(num_experts, bool) or num_experts < 1:
        raise ValueError(f'num_experts must be an integer of at least 1, got {num_experts!r}')


def check_activation(activation: str) -> None:
    """Raises ValueError unless a router can have the activation."""
    if activation not in ACTIVATIONS:
        raise ValueError(f'activation must be one of {ACTIVATIONS}, got {activation!r}')


def check_keys(name: str, given: dict, known: list[str], required: list[str]) -> None:
    """Raises ValueError that lists the unknown and the missing keys of a config, a dict."""
    if not isinstance(given, dict):
        raise ValueError(f'{name} must be a dict of {sorted(known)}, got {given!r}')
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f'{name} has unknown keys {unknown}; it takes {sorted(known)}')
    missing = sorted(set(required) - set(given))
    if missing:
        raise ValueError(f'{name} lacks {missing}; it takes {sorted(known)}')


def check_routing(name: str, routing: dict) -> None:
    """Raises ValueError unless `routing` holds arguments of `Router` alone."""
    known = set(inspect.signature(Router).parameters) - {'in_channels', 'num_experts'}
    check_keys(name, routing, sorted(known), required=[])
