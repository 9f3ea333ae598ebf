# Six looks of the same objects: static, CondConv as the paper has it, and CondConv from block 1 on
# whose experts start as one kernel that moves as a plain one does; each at its best learning rate.
seeds = (0, 1, 2)
epochs = 5
baseline = 'static'
learning_rates = (4e-3, 8e-3, 16e-3)

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
condconv = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
one_kernel = {
    'model.backbone.cond_cfg.init': 'one-kernel',
    'model.neck.conv_cfg.init': 'one-kernel',
    'optim_wrapper.constructor': 'CondConvOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg': dict(expert_lr_mult='matched'),
}
early = {'model.backbone.cond_cfg.start': 1}
arms = {
    'static': dict(config=static),
    'paper': dict(config=condconv),
    'early_matched': dict(config=condconv, cfg_options={**one_kernel, **early}),
}
