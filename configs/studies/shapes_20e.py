# Does the lead of experts in every layer last? Four times as long as shapes_design.py, same rates.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 20
baseline = 'static'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
everywhere = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-everywhere_1xb8-5e_shapes.py'
rate = {'optim_wrapper.optimizer.lr': 16e-3}
arms = {
    'everywhere': dict(config=everywhere, cfg_options={'optim_wrapper.optimizer.lr': 4e-3}),
    'static': dict(config=static, cfg_options=rate),
    'static_w0.54': dict(
        config=static, cfg_options={**rate, **_base_.widths[54]}, baseline='everywhere'
    ),
    'static_w0.78': dict(
        config=static, cfg_options={**rate, **_base_.widths[78]}, baseline='everywhere'
    ),
}
