# Nine domains from scratch on two cores, each at its own best learning rate: the static network,
# experts in the head's predictors, from block 1 on as one kernel at first, and as the paper has
# them, and the static network widened to the head's time per image and to its multiply-adds.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 50
baseline = 'static'
learning_rates = (8e-3, 4e-3, 16e-3)

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
backbone_and_neck = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'
batch = {'train_dataloader.batch_size': 32}
arms = {
    'static': dict(config=static, cfg_options=batch),
    'head': dict(
        config='../domains/ssd192_mobilenet-v1-0.25-condconv-e8-head_1xb8-25e_domains.py',
        cfg_options=batch,
    ),
    'static_same-time': dict(
        config=static,
        cfg_options=batch,
        baseline='head',
        equal_cost=dict(to='head', by='seconds_per_image', variants=_base_.domains_widths[30:60:2]),
    ),
    'early_slow-routers': dict(
        config=backbone_and_neck, cfg_options={**batch, **_base_.early, **_base_.matched}
    ),
    # its kernels move four times as far as the others', hence the lower rates
    'paper': dict(config=backbone_and_neck, cfg_options=batch, learning_rates=(2e-3, 1e-3, 4e-3)),
    'static_same-madds': dict(
        config=static,
        cfg_options=batch,
        baseline='head',
        equal_cost=dict(to='head', by='multiply_adds', variants=_base_.domains_widths[25:30]),
    ),
}
