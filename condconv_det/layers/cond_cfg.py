"""`cond_cfg`, the one argument that switches a network to CondConv."""

import inspect
from dataclasses import dataclass, field, fields

from .cond_conv2d import OWN_ROUTER
from .router import Router, check_num_experts

SHARES = ('layer', 'block', 'network')


@dataclass(frozen=True)
class CondCfg:
    """Which blocks of a backbone are routed, and how.

    Args:
        num_experts: E, at least 1.
        start: number of the first routed block; blocks count from 1.
        share: who has a router: each "layer" (the paper's baseline), each "block", the "network".
        routing: arguments of `Router`.
    """

    num_experts: int
    start: int
    share: str = 'layer'
    routing: dict = field(default_factory=lambda: dict(OWN_ROUTER))

    @classmethod
    def parse(cls, cond_cfg: dict | None, num_blocks: int, default_start: int) -> 'CondCfg | None':
        """Reads a backbone's `cond_cfg`; None stays None, the static network.

        Raises:
            ValueError: a key is unknown or missing, or a value out of range.
        """
        if cond_cfg is None:
            return None
        check_keys(
            'cond_cfg', cond_cfg, [key.name for key in fields(cls)], required=['num_experts']
        )
        parsed = cls(**{'start': default_start, **cond_cfg})
        check_num_experts(parsed.num_experts)
        if not isinstance(parsed.start, int) or not 1 <= parsed.start <= num_blocks:
            raise ValueError(
                f'cond_cfg.start must be the number of a block, 1 to {num_blocks}, '
                f'got {parsed.start!r}'
            )
        if parsed.share not in SHARES:
            raise ValueError(f'cond_cfg.share must be one of {SHARES}, got {parsed.share!r}')
        check_routing('cond_cfg.routing', parsed.routing)
        return parsed

    def router(self, in_channels: int) -> Router:
        """A router as `routing` describes it."""
        return Router(in_channels, self.num_experts, **self.routing)

    def conv_cfg(self) -> dict:
        """The `conv_cfg` of a routed layer: with its own router only if each layer has one."""
        routing = dict(self.routing) if self.share == 'layer' else None
        return dict(type='CondConv2d', num_experts=self.num_experts, routing=routing)


def check_keys(name: str, given: dict, known: list[str], required: list[str]) -> None:
    """Raises ValueError that lists the unknown and the missing keys of a config."""
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
