# Half and twice the width of shapes_design.py, at the rates that were best there.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static_w0.25'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
everywhere = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-everywhere_1xb8-5e_shapes.py'


def at(config, rate, percent):
    return {
        'config': config,
        'cfg_options': {**_base_.widths[percent], 'optim_wrapper.optimizer.lr': rate},
        'baseline': f'static_w{percent / 100}',
    }


arms = {
    f'{name}_w{percent / 100}': at(config, rate, percent)
    for percent in (25, 100)
    for name, config, rate in (('static', static, 16e-3), ('everywhere', everywhere, 4e-3))
}
