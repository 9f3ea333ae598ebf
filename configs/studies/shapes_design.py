# Where to route, and with how many experts: the arms of shapes.py in other forms, at the rates that
# were best there. Kernels of two experts and of four move as far as those of eight, and as those of
# `static_fast-kernels`, the same training with one kernel; `static_fast-everywhere` is that to
# `everywhere`. Widened static networks are compared with `everywhere`.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
condconv = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
everywhere = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-everywhere_1xb8-5e_shapes.py'
early = _base_.early
late = {**early, 'model.backbone.cond_cfg.start': 7}


def experts(number):
    """Of `early`, which move a kernel as far as eight do."""
    factor = 8.0 / number
    keys = {
        'conv.weight': dict(lr_mult=factor, decay_mult=1 / factor),
        'backbone.conv1': dict(lr_mult=1.0),
    }
    return {
        **early,
        'model.backbone.cond_cfg.num_experts': number,
        'model.neck.conv_cfg.num_experts': number,
        'optim_wrapper.paramwise_cfg': dict(custom_keys=keys),
    }


def at(config, rate, options={}):
    return dict(config=config, cfg_options={**options, 'optim_wrapper.optimizer.lr': rate})


arms = {
    'static': at(static, 16e-3),
    'static_fast-kernels': at(static, 4e-3, _base_.fast_kernels),
    'early_e2': at(condconv, 4e-3, experts(2)),
    'early_e4': at(condconv, 4e-3, experts(4)),
    'early': at(condconv, 4e-3, early),
    'late': at(condconv, 4e-3, late),
    'everywhere': at(everywhere, 4e-3),
    'static_fast-everywhere': at(static, 4e-3, _base_.fast_everywhere),
    'static_same-madds': dict(
        at(static, 16e-3),
        baseline='everywhere',
        equal_cost=dict(
            to='everywhere',
            by='multiply_adds',
            variants=_base_.widths[50:60],
        ),
    ),
    'static_w0.54': dict(at(static, 16e-3, _base_.widths[54]), baseline='everywhere'),
    'static_w0.78': dict(at(static, 16e-3, _base_.widths[78]), baseline='everywhere'),
}
