# Does CondConv help SSD300-MobileNetV1 0.5 on BCCD, and how are its experts best trained?
seeds = (0, 1, 2)
# 10 epochs * 26 steps of 8 images = 260 steps
epochs = 10
baseline = 'static'

static = '../bccd/ssd300_mobilenet-v1-0.5_1xb8-60e_bccd.py'
condconv = '../bccd/ssd300_mobilenet-v1-0.5-condconv-e8_1xb8-60e_bccd.py'
one_kernel = {
    'model.backbone.cond_cfg.init': 'one-kernel',
    'model.neck.conv_cfg.init': 'one-kernel',
}
# 2/E, with which an Adam step moves the mixed kernel as far as a plain one
slow_experts = {
    'optim_wrapper.constructor': 'CondConvOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg': dict(expert_lr_mult=0.25),
}
# E/2 times the recipe's, by which Adam moves the mixed kernel of 8 experts further anyway
fast = {'optim_wrapper.optimizer.lr': 8e-3}
arms = {
    'static': dict(config=static),
    'static_fast': dict(config=static, cfg_options=fast),
    'e8_fast': dict(config=condconv, cfg_options=fast, baseline='static_fast'),
    'e8_fast_one-kernel': dict(
        config=condconv, cfg_options={**fast, **one_kernel}, baseline='static_fast'
    ),
    'e8_fast_slow': dict(
        config=condconv, cfg_options={**fast, **slow_experts}, baseline='static_fast'
    ),
    'e4': dict(
        config=condconv,
        cfg_options={
            'model.backbone.cond_cfg.num_experts': 4,
            'model.neck.conv_cfg.num_experts': 4,
        },
    ),
    'e8': dict(config=condconv),
    'e8_one-kernel': dict(config=condconv, cfg_options=one_kernel),
    'e8_slow': dict(config=condconv, cfg_options=slow_experts),
    # twice the training
    'static_from-static': dict(config=static, start_from='static'),
    'e8_from-static': dict(config=condconv, start_from='static', baseline='static_from-static'),
}
