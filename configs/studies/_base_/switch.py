# What the arms of studies change in their configs.

# eight experts from block 1 on that start as one kernel
early = {
    'model.backbone.cond_cfg.start': 1,
    'model.backbone.cond_cfg.init': 'one-kernel',
    'model.neck.conv_cfg.init': 'one-kernel',
}
# experts that move as a plain kernel does, and routers at a tenth of the rate
matched = {
    'optim_wrapper.constructor': 'CondConvOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg': dict(
        expert_lr_mult='matched', custom_keys=dict(router=dict(lr_mult=0.1))
    ),
}
# of a static network the kernels that `early` moves four times as far, and no more
fast_kernels = {
    'optim_wrapper.paramwise_cfg': dict(
        custom_keys={
            'conv.weight': dict(lr_mult=4.0, decay_mult=0.25),
            'backbone.conv1': dict(lr_mult=1.0),
        }
    )
}
# experts in the head's predictors alone, beside kernels that move as far
head = {'model.bbox_head.cond_cfg': dict(num_experts=8, init='one-kernel'), **fast_kernels}
# of a static network the head's predictors, too
fast_everywhere = {
    'optim_wrapper.paramwise_cfg': dict(
        custom_keys={
            'conv.weight': dict(lr_mult=4.0, decay_mult=0.25),
            '.0.weight': dict(lr_mult=4.0, decay_mult=0.25),
            'backbone.conv1': dict(lr_mult=1.0),
        }
    )
}
# static networks of shapes and of nine domains, as many percent wide as their place in the list
widths, domains_widths = (
    [
        {
            'model.backbone.widen_factor': percent / 100,
            'model.neck.in_channels': channels[:3],
            'model.neck.out_channels': channels,
            'model.bbox_head.in_channels': channels,
        }
        for percent in range(101)
        for channels in [[round(percent / 100 * number) for number in (256, 512, 1024, 512, last)]]
    ]
    for last in (256, 512)
)
