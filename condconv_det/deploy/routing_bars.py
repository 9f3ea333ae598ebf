"""Which experts an image calls, layer by layer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from matplotlib.figure import Figure
from torch import Tensor, nn

from condconv_det.layers import Router


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Keeps what each router computes while the context lasts.

    Yields:
        Routing weights [B, E] on the CPU, one for each call, by the name of the layer or block that
        has the router, in the order in which the model runs them.
    """
    record: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, Router):
            layer = name.removesuffix('.router')

            def keep(module: Router, inputs: tuple, routing: Tensor, layer: str = layer) -> None:
                record.setdefault(layer, []).append(routing.detach().float().cpu())

            hooks.append(module.register_forward_hook(keep))
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def plot_routing(record: Mapping[str, list[Tensor]], columns: int = 6) -> Figure:
    """Bars of the routing weights, one plot a layer and one bar an expert.

    Args:
        record: as `record_routing` yields it; of several calls, as in a head that runs on several
            feature maps, or several images, bars show the mean.
        columns: plots in a row.
    """
    rows = -(-len(record) // columns)
    # no pyplot: it keeps every figure, and is not for a server's threads
    figure = Figure(figsize=(2.3 * columns, 1.5 * rows + 0.5), layout='constrained')
    plots = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (layer, calls) in zip(plots, record.items()):
        mean = sum(call.mean(0) for call in calls) / len(calls)
        axes.bar(range(1, len(mean) + 1), mean.tolist())
        axes.set_title(layer.removesuffix('.conv'), fontsize='x-small')
        axes.set_ylim(0, 1)
        axes.set_xticks(range(1, len(mean) + 1))
    for axes in plots[len(record) :]:
        axes.set_axis_off()
    figure.suptitle('Routing weights of the experts, layer by layer')
    return figure
