# Experts in the head beside wider static networks: one of the same multiply-adds, and one of about
# the same time per image on a CPU.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'


def at(config, options={}):
    return dict(config=config, cfg_options={**options, 'optim_wrapper.optimizer.lr': 16e-3})


arms = {
    'static': at(static),
    'head': at(head),
    'static_same-madds': dict(
        at(static),
        baseline='head',
        equal_cost=dict(to='head', by='multiply_adds', variants=_base_.widths[50:57]),
    ),
    'static_w0.78': dict(at(static, _base_.widths[78]), baseline='head'),
}
