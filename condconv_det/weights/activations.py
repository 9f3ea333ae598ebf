"""How a checkpoint's layers are routed, by the config that training or a conversion leaves in it.

The config is Python. It is read as literals and never run, for a checkpoint may be anybody's.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from condconv_det.layers.cond_conv2d import OWN_ROUTER
from condconv_det.layers.router import ACTIVATIONS

ROUTED_TYPES = ('CondConv2d', 'CondLinear')


class UnreadableConfig(ValueError):
    """A config in a checkpoint that tells nothing of its routing."""


def told_activations(keys: Sequence[str], meta: dict[str, Any]) -> dict[str, str]:
    """The activation of each layer's router, where the config tells it.

    Args:
        keys: of experts in the state dict, such as 'neck.extra_layers.0.0.conv.weight'.
        meta: of the checkpoint; mmengine keeps the config's text as `cfg`, a converted file the
            `backbone`.

    Raises:
        UnreadableConfig: there is a config with a model that is not made of literals alone.
        ValueError: the part of the network that holds a layer is configured with both.
    """
    model = _read_model(meta.get('cfg')) or dict(backbone=meta.get('backbone'))
    told = {}
    for key in keys:
        name, part = _part(model, key)
        found = set(_activations(part))
        if len(found) > 1:
            raise ValueError(
                f'the config in the checkpoint has routers of {" and of ".join(sorted(found))} in '
                f'{name or "the model"}, and does not tell which of them {key} have'
            )
        if found:
            told[key] = found.pop()
    return told


def _read_model(text: Any) -> Any:
    """A config's `model`; None where it has none."""
    if not isinstance(text, str):
        return None
    try:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'model':
                return ast.literal_eval(_Literals().visit(node.value))
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableConfig(
            f'the config in the checkpoint cannot be read as literals: {type(error).__name__}: '
            f'{error}'
        ) from error
    return None


class _Literals(ast.NodeTransformer):
    """Puts `{'a': 1}` in the place of `dict(a=1)`, and a number in that of `inf` and `nan`."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(float(node.id)) if node.id in ('inf', 'nan') else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) != 'dict' or node.args:
            return node
        keys = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def _part(model: Any, key: str) -> tuple[str, Any]:
    """The innermost config on the way to a weight, such as `model['neck']`, and its name."""
    way = []
    for name in key.split('.'):
        inner = None
        if isinstance(model, dict):
            inner = model.get(name)
        elif isinstance(model, list | tuple) and name.isdecimal() and int(name) < len(model):
            inner = model[int(name)]
        if not isinstance(inner, dict | list | tuple):
            break
        model = inner
        way.append(name)
    return '.'.join(way), model


def _activations(config: Any) -> Iterator[str]:
    """Those of all that is routed in a config."""
    if isinstance(config, dict):
        switches = [config.get('cond_cfg')]
        if str(config.get('type')).rpartition('.')[2] in ROUTED_TYPES:
            switches.append(config)
        routings = [each.get('routing', {}) for each in switches if isinstance(each, dict)]
        for routing in routings:
            if isinstance(routing, dict):  # None has no router
                activation = routing.get('activation', OWN_ROUTER['activation'])
                if activation in ACTIVATIONS:
                    yield activation
        config = list(config.values())
    for inner in config if isinstance(config, list | tuple) else ():
        yield from _activations(inner)
