# What is it in the head that helps? Experts there with fewer of them, down to one, which a router
# can but scale; half and twice the rate, for which one seed is enough; and the static network with
# predictors that move four times as far. With `head_fixed-routing` all weights stay at 1/2: the
# static twin, but for how its kernels start.
seeds = (0, 1, 2)
epochs = 5
baseline = 'static'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'
fast_head = {
    'optim_wrapper.paramwise_cfg': dict(
        custom_keys=dict(bbox_head=dict(lr_mult=4.0, decay_mult=0.25))
    )
}


def at(config, options={}, rate=16e-3):
    return dict(config=config, cfg_options={**options, 'optim_wrapper.optimizer.lr': rate})


arms = {
    'static': at(static),
    'static_fast-head': at(static, fast_head),
    'head': at(head),
    'head_lr0.008': dict(at(head, rate=8e-3), baseline='head'),
    'head_lr0.032': dict(at(head, rate=32e-3), baseline='head'),
    'head_e1': at(head, {'model.bbox_head.cond_cfg.num_experts': 1}),
    'head_e2': at(head, {'model.bbox_head.cond_cfg.num_experts': 2}),
    'head_e4': at(head, {'model.bbox_head.cond_cfg.num_experts': 4}),
    # so warm that no logit is left to speak of, nor a gradient
    'head_fixed-routing': dict(
        at(head, {'model.bbox_head.cond_cfg.routing': dict(temperature=1e9)}), baseline='head'
    ),
}
