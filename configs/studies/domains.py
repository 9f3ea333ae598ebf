# Nine domains, one detector: static, CondConv as the paper has it, and CondConv from the paper's
# block and from block 1 on whose experts start as one kernel that moves as a plain one does; each
# at its best learning rate.
seeds = (0, 1, 2)
# 25 epochs * 79 steps of 16 images = 1,975 steps
epochs = 25
baseline = 'static'
learning_rates = (4e-3, 8e-3, 2e-3)

static = '../domains/ssd192_mobilenet-v1-0.25_1xb16-25e_domains.py'
condconv = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb16-25e_domains.py'
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
    'late_matched': dict(config=condconv, cfg_options=one_kernel),
    'early_matched': dict(config=condconv, cfg_options={**one_kernel, **early}),
}
