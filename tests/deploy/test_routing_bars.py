import torch
from torch import nn

from condconv_det import CondConv2d
from condconv_det.deploy.routing_bars import plot_routing, record_routing

WEIGHTS = torch.tensor([0.1, 0.7, 0.4])


def net():
    """Two routed layers, the second of which runs twice, whose routing weights are known."""
    first, again = (CondConv2d(4, 4, 1, num_experts=3) for _ in range(2))
    for layer, routing in ((first, WEIGHTS), (again, WEIGHTS.flip(0))):
        nn.init.zeros_(layer.router.fc.weight)
        layer.router.fc.bias.data = routing.logit()
    return nn.Sequential(first, nn.Conv2d(4, 4, 1), again, again)


def test_records_each_call_by_the_name_of_its_layer():
    model = net()
    with record_routing(model) as record:
        model(torch.randn(2, 4, 5, 5))
    model(torch.randn(2, 4, 5, 5))  # not recorded
    assert {layer: len(calls) for layer, calls in record.items()} == {'0': 1, '2': 2}
    torch.testing.assert_close(record['0'][0], WEIGHTS.expand(2, 3))
    torch.testing.assert_close(record['2'][1], WEIGHTS.flip(0).expand(2, 3))


def test_a_static_model_records_nothing():
    with record_routing(nn.Conv2d(4, 4, 1)) as record:
        pass
    assert record == {}


def test_bars_are_the_mean_routing_weights():
    calls = [torch.tensor([[0.2, 0.4]]), torch.tensor([[0.4, 1.0]])]
    figure = plot_routing({'layer1.conv': calls, 'fc': [torch.tensor([[0.5, 0.0]])]})
    drawn = {
        axes.get_title(): [round(bar.get_height(), 5) for bar in axes.patches]
        for axes in figure.axes
        if axes.axison
    }
    assert drawn == {'layer1': [0.3, 0.7], 'fc': [0.5, 0.0]}
