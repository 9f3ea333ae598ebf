# Six looks of the same objects: static, CondConv from block 1 on whose experts start as one kernel,
# the same with experts that move as a plain kernel does and routers at a tenth of its rate,
# CondConv as the paper has it, and the static network widened to the cost of experts from block 1
# on; each at its best learning rate. With Adam eight experts move a kernel four times as far as the
# same rate moves a plain one, and the head and the norms once: where nothing else sees to that,
# rates are a quarter, and `static_fast-kernels` is the static network trained so.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static'
learning_rates = (16e-3, 32e-3)
quartered = (4e-3, 8e-3)

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
condconv = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
widths = [_base_.widths[percent] for percent in (*range(50, 56), *range(56, 100, 2))]
arms = {
    'static': dict(config=static),
    'early': dict(config=condconv, cfg_options=_base_.early, learning_rates=quartered),
    'static_fast-kernels': dict(
        config=static, cfg_options=_base_.fast_kernels, learning_rates=quartered
    ),
    'early_slow-routers': dict(config=condconv, cfg_options={**_base_.early, **_base_.matched}),
    'static_same-madds': dict(
        config=static, equal_cost=dict(to='early', by='multiply_adds', variants=widths)
    ),
    'static_same-time': dict(
        config=static, equal_cost=dict(to='early', by='seconds_per_image', variants=widths)
    ),
    'paper': dict(config=condconv, learning_rates=quartered),
}
