# Nine domains, one detector: static, CondConv from block 1 on whose experts start as one kernel,
# CondConv as the paper has it, the first of these with experts that move as a plain kernel does and
# routers at a tenth of its rate, and the static network widened to its time; each at its best
# learning rate. As in shapes.py, rates are a quarter where kernels move four times as far. A study
# for a GPU.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
# 50 epochs * 40 steps of 32 images = 2,000 steps
epochs = 50
baseline = 'static'
learning_rates = (8e-3, 16e-3, 32e-3)
quartered = (2e-3, 4e-3, 8e-3)

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
condconv = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'


batch = {'train_dataloader.batch_size': 32}
quarter = {**_base_.domains_widths[25], **batch}
early = {**quarter, **_base_.early}
widths = [
    {**width, **batch} for width in (*_base_.domains_widths[25:32], *_base_.domains_widths[32:60:2])
]
arms = {
    'static': dict(config=static, cfg_options=quarter),
    'early': dict(config=condconv, cfg_options=early, learning_rates=quartered),
    'paper': dict(config=condconv, cfg_options=quarter, learning_rates=quartered),
    'early_slow-routers': dict(config=condconv, cfg_options={**early, **_base_.matched}),
    'static_same-time': dict(
        config=static, equal_cost=dict(to='early', by='seconds_per_image', variants=widths)
    ),
}
