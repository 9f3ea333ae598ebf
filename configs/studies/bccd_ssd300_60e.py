# The recipe at its full length, and at four times its learning rate: does CondConv help there?
seeds = (0, 1, 2)
# 60 epochs * 26 steps of 8 images = 1560 steps
epochs = 60
baseline = 'static'

static = '../bccd/ssd300_mobilenet-v1-0.5_1xb8-60e_bccd.py'
condconv = '../bccd/ssd300_mobilenet-v1-0.5-condconv-e8_1xb8-60e_bccd.py'
one_kernel = {
    'model.backbone.cond_cfg.init': 'one-kernel',
    'model.neck.conv_cfg.init': 'one-kernel',
}
fast = {'optim_wrapper.optimizer.lr': 8e-3}
arms = {
    'static': dict(config=static),
    'e8': dict(config=condconv),
    'static_fast': dict(config=static, cfg_options=fast),
    'e8_fast_one-kernel': dict(
        config=condconv, cfg_options={**fast, **one_kernel}, baseline='static_fast'
    ),
    'e8_fast': dict(config=condconv, cfg_options=fast, baseline='static_fast'),
}
