# Does the lead of experts in the head last? Four times as long as shapes_parts.py, same rate.
seeds = (0, 1, 2)
epochs = 20
baseline = 'static'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'
rate = {'optim_wrapper.optimizer.lr': 16e-3}
arms = {
    'static': dict(config=static, cfg_options=rate),
    'head': dict(config=head, cfg_options=rate),
}
