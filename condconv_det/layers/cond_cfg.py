"""`cond_cfg`, the one argument that switches a network to CondConv."""

from dataclasses import dataclass, field, fields

from torch import nn

from .cond_conv2d import OWN_ROUTER, CondConv2d
from .expert_start import check_init
from .router import Router, check_keys, check_num_experts, check_routing

SHARES = ('layer', 'block', 'network')
# Routed of a network that is cut off before its default start: as many as of the paper's ResNet-50.
LAST_BLOCKS = 3


@dataclass(frozen=True)
class CondCfg:
    """Which blocks of a backbone are routed, and how.

    Args:
        num_experts: E, at least 1.
        start: number of the first routed block; blocks count from 1. The default is the backbone's,
            or the third last block where `out_indices` does not need that one.
        share: who has a router: each "layer" (the paper's baseline), each "block", the "network".
        routing: arguments of `Router`; with `hierarchical=True` each router also sees the weights
            of the one before it.
        init: where experts start, one by one ('paper') or as 'one-kernel', see `expert_start`.
    """

    num_experts: int
    start: int
    share: str = 'layer'
    routing: dict = field(default_factory=lambda: dict(OWN_ROUTER))
    init: str = 'paper'

    @classmethod
    def parse(
        cls, cond_cfg: dict | None, num_blocks: int, default_start: int, default_share: str
    ) -> 'CondCfg | None':
        """Reads a backbone's `cond_cfg`; None stays None, the static network.

        Args:
            cond_cfg: of the fields above, `num_experts` at least.
            num_blocks: how many are built.
            default_start: of the whole network; where fewer blocks are built, the last three of
                them are routed.
            default_share: who has a router.

        Raises:
            ValueError: a key is unknown or missing, a value out of range, or no block is built.
        """
        if cond_cfg is None:
            return None
        known = [key.name for key in fields(cls)]
        check_keys('cond_cfg', cond_cfg, known, required=['num_experts'])
        if num_blocks == 0:
            raise ValueError(
                f'cond_cfg must be None where out_indices needs no block that could be routed, '
                f'got {cond_cfg}'
            )
        if default_start > num_blocks:
            default_start = max(1, num_blocks - LAST_BLOCKS + 1)
        parsed = cls(**{'start': default_start, 'share': default_share, **cond_cfg})
        check_num_experts(parsed.num_experts)
        if not isinstance(parsed.start, int) or not 1 <= parsed.start <= num_blocks:
            raise ValueError(
                f'cond_cfg.start must be the number of a block that out_indices needs, '
                f'1 to {num_blocks}, got {parsed.start!r}'
            )
        if parsed.share not in SHARES:
            raise ValueError(f'cond_cfg.share must be one of {SHARES}, got {parsed.share!r}')
        check_routing('cond_cfg.routing', parsed.routing)
        check_init('cond_cfg.init', parsed.init)
        if parsed.share == 'network' and parsed.routing.get('hierarchical'):
            raise ValueError(
                "cond_cfg: hierarchical routing needs several routers, share='network' has one"
            )
        return parsed

    def router(self, in_channels: int) -> Router:
        """A router as `routing` describes it."""
        return Router(in_channels, self.num_experts, **self.routing)

    def conv(self, conv: nn.Conv2d, own_router: bool) -> CondConv2d:
        """The routed layer for a plain one's place."""
        if own_router:
            return CondConv2d.from_conv(conv, self.num_experts, self.routing, self.init)
        activation = self.routing.get('activation')
        return CondConv2d.from_conv(conv, self.num_experts, None, self.init, activation)


def parse_head_cond_cfg(cond_cfg: dict | None) -> dict | None:
    """Reads a head's `cond_cfg`, arguments of its routed layers; None stays None, the static head.

    Raises:
        ValueError: a key is unknown or missing, or a value out of range.
    """
    if cond_cfg is None:
        return None
    check_keys('cond_cfg', cond_cfg, ['num_experts', 'routing', 'init'], required=['num_experts'])
    check_num_experts(cond_cfg['num_experts'])
    check_init('cond_cfg.init', cond_cfg.get('init', 'paper'))
    routing = cond_cfg.get('routing', {})
    check_routing('cond_cfg.routing', routing)
    if routing.get('hierarchical'):
        raise ValueError('cond_cfg: hierarchical routing is for backbones, not for heads')
    return dict(cond_cfg)
