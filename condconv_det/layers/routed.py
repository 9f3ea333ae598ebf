"""Blocks through which routing weights travel beside the features.

One rule holds everywhere in a network: routing weights go in and come out with the features, a
router on the way replaces them, and a layer without a router uses those it is handed. Before the
first router there are none, and features go in and come out alone; so they do all the way through
a static network, whose blocks and stages are mmdet's to hooks and to callers. A `ConvModule` whose
convolution `conv_cfg` has given a router is called as any layer, and lets them pass.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.model import Sequential as PlainSequential
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from condconv_det.ops.tracing import is_compiling

from .cond_cfg import CondCfg
from .cond_conv2d import CondConv2d
from .static_weights import load_router

Routed = tuple[Tensor, Tensor | None]
# What a block or a row of them returns: the features alone where no routing weights are in force.
MaybeRouted = Tensor | tuple[Tensor, Tensor]
# where mmdet's `Bottleneck` lists what is plugged into it, which may be a `ConvModule`
PLUGIN_NAMES = tuple(f'after_conv{position}_plugin_names' for position in (1, 2, 3))


def run_routed(layer: nn.Module, x: Tensor, routing: Tensor | None) -> Routed:
    """Runs anything that may be routed: a block or a row of them, a layer, a `ConvModule`.

    Args:
        layer: takes x alone unless it is, or holds, a `CondConv2d`.
        x: [B, C, H, W].
        routing: [B, E], the routing weights in force; None before the first router.

    Returns:
        The layer's output, and the routing weights now in force.
    """
    if isinstance(layer, RoutedBlock | RoutedSequential | RoutedConvModule):
        out = layer(x) if routing is None else layer(x, routing)
        return out if isinstance(out, tuple) else (out, None)
    if isinstance(layer, CondConv2d):
        if layer.router is not None:
            routing = layer.router(x, routing)
        return layer(x, routing), routing
    if isinstance(layer, ConvModule) and isinstance(layer.conv, CondConv2d):
        router = layer.conv.router
        if router is None or router.hierarchical:  # needs the weights before it
            return _run_conv_module(layer, x, routing)
    return layer(x), routing


def _run_conv_module(module: ConvModule, x: Tensor, routing: Tensor | None) -> Routed:
    """What the module computes, its convolution by the routing weights."""
    for part in module.order:
        if part == 'conv':
            x = module.padding_layer(x) if module.with_explicit_padding else x
            x, routing = run_routed(module.conv, x, routing)
        elif part == 'norm' and module.with_norm:
            x = module.norm(x)
        elif part == 'act' and module.with_activation:
            x = module.activate(x)
    return x, routing


class RoutedConvModule(ConvModule):
    """mmcv's `ConvModule` in a routed block, called as a whole, so that hooks on it see it.

    Shapes: those of `RoutedSequential`.
    """

    def forward(self, x: Tensor, routing: Tensor | None = None) -> MaybeRouted:
        x, routing = _run_conv_module(self, x, routing)
        return x if routing is None else (x, routing)


class RoutedSequential(PlainSequential):
    """Layers and blocks in a row.

    Shapes:
        x [B, Cin, H, W], routing [B, E] or None -> [B, Cout, H', W'], with routing [B, E] beside it
            if there are routing weights.
    """

    def forward(self, x: Tensor, routing: Tensor | None = None) -> MaybeRouted:
        for layer in self:
            x, routing = run_routed(layer, x, routing)
        return x if routing is None else (x, routing)


class RoutedBlock(BaseModule):
    """A block of layers, static until `route` is called; mixed in before the static block's class.

    Subclasses set `with_cp` (whether to recompute the block in backward rather than keep what it
    computed; its norms then count the batch once) and write `forward_layers`, which hands the
    routing weights to each layer.

    Shapes:
        x [B, Cin, H, W], routing [B, E] or None -> [B, Cout, H', W'], with routing [B, E] beside it
            if there are routing weights.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.router = None

    def route(self, cond: CondCfg, first: bool) -> None:
        """Puts experts in the place of the block's convolutions.

        Args:
            cond: how they are routed.
            first: whether this is the network's first routed block, which has the router of a
                network that shares one.
        """
        convs = list(_convolutions(self))
        for owner, name, conv in convs:
            _put_experts(owner, name, cond.conv(conv, own_router=cond.share == 'layer'))
        if cond.share == 'block' or (cond.share == 'network' and first):
            self.router = cond.router(convs[0][-1].in_channels)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        routed = [name for name, layer in self.named_modules() if isinstance(layer, CondConv2d)]
        load_router(self.router, state_dict, prefix, [f'{name}.weight' for name in routed])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor, routing: Tensor | None = None) -> MaybeRouted:
        if self.with_cp and x.requires_grad:
            # a compiled graph writes statistics back once, and takes no contexts
            contexts = {} if is_compiling() else dict(context_fn=self._contexts)
            return checkpoint(self._forward, x, routing, use_reentrant=False, **contexts)
        return self._forward(x, routing)

    def _contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Of the block's forward pass and of the one that is repeated in backward."""
        return nullcontext(), _keeping_statistics(self)

    def _forward(self, x: Tensor, routing: Tensor | None) -> MaybeRouted:
        if self.router is not None:
            routing = self.router(x, routing)
        x, routing = self.forward_layers(x, routing)
        return x if routing is None else (x, routing)

    def forward_layers(self, x: Tensor, routing: Tensor | None) -> Routed:
        raise NotImplementedError


@contextmanager
def _keeping_statistics(block: nn.Module) -> Iterator[None]:
    """Norms normalise as ever and do not add the batch to their running statistics."""
    norms = [
        layer
        for layer in block.modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats
    ]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _convolutions(block: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Conv2d]]:
    """A block's own convolutions; not those inside squeeze-and-excitation and other plugins."""
    plugins = [plugin for names in PLUGIN_NAMES for plugin in getattr(block, names, ())]
    for name, child in block.named_children():
        if name in plugins:
            continue
        if isinstance(child, nn.Conv2d):
            yield block, name, child
        elif isinstance(child, ConvModule | nn.Sequential):
            yield from _convolutions(child)


def _put_experts(owner: nn.Module, name: str, conv: CondConv2d) -> None:
    setattr(owner, name, conv)
    if isinstance(owner, ConvModule):
        owner.__class__ = RoutedConvModule


def route_blocks(
    network: nn.Module,
    blocks: Sequence[RoutedBlock | ConvModule],
    cond_cfg: dict | None,
    default_start: int,
    default_share: str = 'layer',
) -> None:
    """Routes a network's blocks from `cond_cfg`'s start on; None leaves it static.

    Args:
        network: has frozen its stages already.
        blocks: all of the network's, in the order in which it runs them.
        cond_cfg, default_start, default_share: see `CondCfg.parse`.

    Raises:
        ValueError: `cond_cfg` has an unknown key or a value out of range.

    Warns:
        UserWarning: a routed block, or a layer routed by `conv_cfg`, is frozen, so that its experts
            would never train.
    """
    cond = CondCfg.parse(cond_cfg, len(blocks), default_start, default_share)
    if cond is None:
        _warn_of_frozen_layers(network)
        return
    routed = blocks[cond.start - 1 :]
    frozen = [block for block in routed if not any(p.requires_grad for p in block.parameters())]
    for block in routed:
        first = block is routed[0]
        if isinstance(block, RoutedBlock):
            block.route(cond, first)
        else:  # a last convolution that counts as a block
            own_router = first or cond.share != 'network'
            _put_experts(block, 'conv', cond.conv(block.conv, own_router))
    for block in frozen:
        block.requires_grad_(False)  # its experts are newer than the freezing
    if frozen:
        last = cond.start + len(frozen) - 1
        warnings.warn(
            f'{type(network).__name__}: frozen_stages={network.frozen_stages} freezes routed '
            f'blocks {cond.start} to {last}: their experts and routers never train; '
            f'freeze fewer stages or set cond_cfg.start to {last + 1}',
            stacklevel=3,
        )


def _warn_of_frozen_layers(network: nn.Module) -> None:
    """Those that `conv_cfg` has routed."""
    frozen = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, CondConv2d) and not layer.weight.requires_grad
    ]
    if frozen:
        warnings.warn(
            f'{type(network).__name__}: frozen_stages={network.frozen_stages} freezes routed '
            f'layers {frozen[0]} to {frozen[-1]}: their experts and routers never train; '
            f'freeze fewer stages',
            stacklevel=4,
        )
