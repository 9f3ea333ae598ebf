# Nine domains, one detector: static, CondConv from block 1 on whose experts start as one kernel,
# the same with experts that move as a plain kernel does, that with routers at a tenth of the rate,
# and CondConv as the paper has it; each at its best learning rate.
seeds = (0, 1, 2)
# 25 epochs * 158 steps of 8 images = 3,950 steps
epochs = 25
baseline = 'static'
learning_rates = (8e-3, 16e-3, 4e-3, 2e-3)

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
condconv = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'
early = {
    'model.backbone.cond_cfg.start': 1,
    'model.backbone.cond_cfg.init': 'one-kernel',
    'model.neck.conv_cfg.init': 'one-kernel',
}
matched = {
    'optim_wrapper.constructor': 'CondConvOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg': dict(expert_lr_mult='matched'),
}
slow_routers = {
    **matched,
    'optim_wrapper.paramwise_cfg': dict(
        expert_lr_mult='matched', custom_keys=dict(router=dict(lr_mult=0.1))
    ),
}
arms = {
    'static': dict(config=static),
    'early_matched': dict(config=condconv, cfg_options={**early, **matched}),
    'early_slow-routers': dict(config=condconv, cfg_options={**early, **slow_routers}),
    'early': dict(config=condconv, cfg_options=early),
    'paper': dict(config=condconv),
}
