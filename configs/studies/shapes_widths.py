# Half and twice the width of shapes_parts.py, at the same rates.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static_w0.25'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
everywhere = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-everywhere_1xb8-5e_shapes.py'


def at(config, rate, percent, options={}):
    return {
        'config': config,
        'cfg_options': {
            **_base_.widths[percent],
            **options,
            'optim_wrapper.optimizer.lr': rate,
        },
        'baseline': f'static_w{percent / 100}',
    }


arms = {}
for percent in (25, 100):
    width = percent / 100
    arms[f'static_w{width}'] = at(static, 16e-3, percent)
    arms[f'head_w{width}'] = at(static, 4e-3, percent, _base_.head)
    arms[f'everywhere_w{width}'] = at(everywhere, 4e-3, percent)
