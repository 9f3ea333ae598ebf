# Nine domains, one detector: static, CondConv from block 1 on whose experts start as one kernel,
# the same with experts that move as a plain kernel does and routers at a tenth of its rate, and
# CondConv as the paper has it; each at its best learning rate. As in shapes.py, rates are a quarter
# where kernels move four times as far, and `static_fast-kernels` is the static network trained so.
seeds = (0, 1, 2)
# 25 epochs * 158 steps of 8 images = 3,950 steps
epochs = 25
baseline = 'static'
learning_rates = (8e-3, 16e-3)
quartered = (2e-3, 4e-3)

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
condconv = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'
early = {
    'model.backbone.cond_cfg.start': 1,
    'model.backbone.cond_cfg.init': 'one-kernel',
    'model.neck.conv_cfg.init': 'one-kernel',
}
slow_routers = {
    **early,
    'optim_wrapper.constructor': 'CondConvOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg': dict(
        expert_lr_mult='matched', custom_keys=dict(router=dict(lr_mult=0.1))
    ),
}
fast_kernels = {
    'optim_wrapper.paramwise_cfg': dict(
        custom_keys={
            'conv.weight': dict(lr_mult=4.0, decay_mult=0.25),
            'backbone.conv1': dict(lr_mult=1.0),
        }
    )
}
arms = {
    'static': dict(config=static),
    'early': dict(config=condconv, cfg_options=early, learning_rates=quartered),
    'static_fast-kernels': dict(config=static, cfg_options=fast_kernels, learning_rates=quartered),
    'early_slow-routers': dict(config=condconv, cfg_options=slow_routers),
    'paper': dict(config=condconv, learning_rates=quartered),
}
