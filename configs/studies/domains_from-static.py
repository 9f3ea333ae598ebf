# From one trained static detector of nine domains: trained on as it is, and with experts put into
# it, for the same steps. Experts move as one kernel does, and routers at a tenth of the rate; see
# docs/measured/domains.md. The checkpoint is the static arm's of domains_everywhere.py.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 10
baseline = 'static'

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
condconv = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'
everywhere = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8-everywhere_1xb8-25e_domains.py'
head = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8-head_1xb8-25e_domains.py'
trained = {
    'load_from': 'work_dirs/domains_everywhere/static/seed0/epoch_50.pth',
    'optim_wrapper.optimizer.lr': 4e-3,
}
switched = {**trained, **_base_.matched}
arms = {
    'static': dict(config=static, cfg_options=trained),
    'early': dict(config=condconv, cfg_options={**switched, 'model.backbone.cond_cfg.start': 1}),
    'everywhere': dict(config=everywhere, cfg_options=switched),
    'head': dict(config=head, cfg_options=trained),
    'head_fast-routers': dict(
        config=head,
        cfg_options={**trained, 'optim_wrapper.paramwise_cfg.custom_keys.router.lr_mult': 1.0},
    ),
    'paper': dict(config=condconv, cfg_options=switched),
}
