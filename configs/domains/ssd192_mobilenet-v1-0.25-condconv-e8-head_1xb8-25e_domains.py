# Experts in the head's predictors alone; all else learns as in the static twin: docs/when.md.
_base_ = './ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'

model = dict(bbox_head=dict(cond_cfg=dict(num_experts=8, init='one-kernel')))
# kernels start and move as the static ones do, and routers slowly
optim_wrapper = dict(
    constructor='CondConvOptimWrapperConstructor',
    paramwise_cfg=dict(expert_lr_mult='matched', custom_keys=dict(router=dict(lr_mult=0.1))),
)
