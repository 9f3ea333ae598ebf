"""Which experts an image calls, layer by layer."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from numpy import ndarray


def plot_routing(weights: Mapping[str, ndarray]) -> Figure | None:
    """Bars of the routing weights, one plot a layer and one bar an expert.

    Args:
        weights: [N, C, E] by layer, as `RoutingRecorder.pop` returns them; of several images or
            calls, as in a head that runs on several feature maps, bars show the mean.

    Returns:
        None without layers, as of a detector whose routers all see regions.
    """
    if not weights:
        return None
    columns = 6
    rows = -(-len(weights) // columns)
    # no pyplot: it keeps every figure, and is not for a server's threads
    figure = Figure(figsize=(2.3 * columns, 1.5 * rows + 0.5), layout='constrained')
    plots = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (layer, values) in zip(plots, weights.items()):
        mean = values.mean((0, 1))
        axes.bar(range(len(mean)), mean)
        axes.set_title(layer.removesuffix('.conv'), fontsize='x-small')
        axes.set_ylim(0, 1)
        axes.set_xticks(range(len(mean)))
    for axes in plots[len(weights) :]:
        axes.set_axis_off()
    figure.suptitle('Routing weights of the experts, layer by layer')
    return figure
