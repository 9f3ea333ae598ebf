# From one trained static detector of six looks: trained on as it is, and with experts put into it,
# for the same steps. Experts move as one kernel does, and routers at a tenth of the rate. The
# checkpoint is the static arm's of shapes_head_20e.py.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
late = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
everywhere = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-everywhere_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'
trained = {
    'load_from': 'work_dirs/shapes_head_20e/static/seed0/epoch_20.pth',
    'optim_wrapper.optimizer.lr': 4e-3,
}
switched = {**trained, **_base_.matched}
arms = {
    'static': dict(config=static, cfg_options=trained),
    'head': dict(config=head, cfg_options=trained),
    'everywhere': dict(config=everywhere, cfg_options=switched),
    'late': dict(config=late, cfg_options=switched),
}
