"""Layers of every kind for hypothesis to draw, and the paper's equation to compare them with."""

import torch
from hypothesis import strategies as st
from torch.nn import functional as F


def loop_over_examples(x, routing, weight, bias, stride, padding, dilation, groups):
    """The paper's equation, one plain convolution an example, in float64."""
    x, routing, weight = x.double(), routing.double(), weight.double()
    outs = []
    for image, weights in zip(x, routing):
        kernel = sum(r * w for r, w in zip(weights, weight))
        if bias is None or bias.dim() == 1:
            mixed_bias = None if bias is None else bias.double()
        else:
            mixed_bias = sum(r * b for r, b in zip(weights, bias.double()))
        outs.append(F.conv2d(image[None], kernel, mixed_bias, stride, padding, dilation, groups))
    if outs:
        return torch.cat(outs)
    shape = F.conv2d(
        x.new_zeros(1, *x.shape[1:]), weight[0], None, stride, padding, dilation, groups
    )
    return x.new_zeros(0, *shape.shape[1:])


# groups, output channels per group, input channels per group
KINDS = {
    'pointwise': [(1, 3, 2), (1, 1, 1), (1, 5, 4)],
    'dense': [(1, 3, 2), (1, 1, 1), (1, 5, 4)],
    'grouped': [(2, 2, 3), (3, 1, 2), (2, 1, 1)],
    'depthwise': [(6, 1, 1), (3, 2, 1), (1, 1, 1)],
}


@st.composite
def layers(draw, kind):
    """Arguments of cond_conv2d, and how x and weight lie in memory."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    pointwise = kind == 'pointwise'
    groups, multiplier, depth = draw(st.sampled_from(KINDS[kind]))
    kernel = (1, 1) if pointwise else pair(1, 4)
    dilation = pair(1, 2)
    return dict(
        batch=draw(st.sampled_from([3, 2, 4, 1, 0])),
        experts=draw(st.integers(1, 5)),
        in_channels=groups * depth,
        out_channels=groups * multiplier,
        kernel=kernel,
        size=tuple(
            (k - 1) * d + 1 + more for k, d, more in zip(kernel, dilation, pair(0, 5), strict=True)
        ),
        stride=draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (3, 1)])),
        padding=(0, 0) if pointwise else pair(0, 2),
        dilation=dilation,
        groups=groups,
        bias=draw(st.sampled_from([None, 'shared', 'mixed'])),
        layout=draw(st.sampled_from(['contiguous', 'channels_last', 'sliced'])),
        reversed_weight=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


def tensors(case):
    torch.manual_seed(case['seed'])
    batch, (height, width) = case['batch'], case['size']
    x = torch.randn(batch, case['in_channels'], height, width)
    if case['layout'] == 'channels_last':
        x = x.to(memory_format=torch.channels_last)
    elif case['layout'] == 'sliced':
        x = torch.randn(batch, case['in_channels'] + 2, height, width * 2)[:, 1:-1, :, ::2]
    routing = torch.randn(batch, case['experts'])
    weight = torch.randn(
        case['experts'],
        case['out_channels'],
        case['in_channels'] // case['groups'],
        *case['kernel'],
    )
    if case['reversed_weight']:
        weight = weight.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    bias = {
        None: None,
        'shared': torch.randn(case['out_channels']),
        'mixed': torch.randn(case['experts'], case['out_channels']),
    }[case['bias']]
    return x, routing, weight, bias
