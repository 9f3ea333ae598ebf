# Which layers need routing? Experts in the head's predictors alone, there and from block 7 on, and
# in every layer. Kernels of static layers move as far as those of experts do, so that arms differ
# by what is routed and not by how fast they learn. In `head_matched` all learns as in `static`, but
# for the routers.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
everywhere = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-everywhere_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'
late_head = {
    'model.backbone.cond_cfg.start': 7,
    'optim_wrapper.paramwise_cfg': dict(
        custom_keys={
            f'layer{block}.{part}_conv.conv.weight': dict(lr_mult=4.0, decay_mult=0.25)
            for block in ('1.0', '2.0', '2.1', '3.0', '3.1', '4.0')
            for part in ('depthwise', 'pointwise')
        }
    ),
}


def at(config, rate, options={}):
    return dict(config=config, cfg_options={**options, 'optim_wrapper.optimizer.lr': rate})


arms = {
    'static': at(static, 16e-3),
    'static_fast-kernels': at(static, 4e-3, _base_.fast_kernels),
    'head': at(static, 4e-3, _base_.head),
    'head_matched': at(head, 16e-3),
    'everywhere': at(everywhere, 4e-3),
    'late_head': at(everywhere, 4e-3, late_head),
}
