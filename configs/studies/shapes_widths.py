# Half and twice the width of shapes_parts.py, with experts in the head alone that learn as the
# static network does, at the same rate.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static_w0.25'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'


def at(config, percent):
    return {
        'config': config,
        'cfg_options': {**_base_.widths[percent], 'optim_wrapper.optimizer.lr': 16e-3},
        'baseline': f'static_w{percent / 100}',
    }


arms = {}
for percent in (25, 100):
    width = percent / 100
    arms[f'static_w{width}'] = at(static, percent)
    arms[f'head_w{width}'] = at(head, percent)
