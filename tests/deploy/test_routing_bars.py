import numpy as np

from condconv_det.deploy.routing_bars import plot_routing


def test_bars_are_the_mean_routing_weights():
    levels = np.array([[[0.2, 0.4], [0.4, 1.0]]])
    figure = plot_routing({'layer1.conv': levels, 'fc': np.array([[[0.5, 0.0]]])})
    drawn = {
        axes.get_title(): [round(bar.get_height(), 5) for bar in axes.patches]
        for axes in figure.axes
        if axes.axison
    }
    assert drawn == {'layer1': [0.3, 0.7], 'fc': [0.5, 0.0]}


def test_without_layers_there_is_no_figure():
    assert plot_routing({}) is None
