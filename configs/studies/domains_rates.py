# Nine domains from scratch on two cores, each at its own best learning rate: the static network,
# experts in the head's predictors, the static network widened to their time per image, and experts
# from block 1 on that start and move as one kernel.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 50
baseline = 'static'
learning_rates = (8e-3, 4e-3, 16e-3)

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
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
        config='../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py',
        cfg_options={**batch, **_base_.early, **_base_.matched},
    ),
}
