# Nine domains from scratch on two cores: the static network and experts in the head's predictors,
# each at its own best learning rate of three.

seeds = (0, 1, 2)
epochs = 50
baseline = 'static'
learning_rates = (8e-3, 4e-3, 16e-3)

batch = {'train_dataloader.batch_size': 32}
arms = {
    'static': dict(
        config='../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py', cfg_options=batch
    ),
    'head': dict(
        config='../domains/ssd192_mobilenet-v1-0.25-condconv-e8-head_1xb8-25e_domains.py',
        cfg_options=batch,
    ),
}
