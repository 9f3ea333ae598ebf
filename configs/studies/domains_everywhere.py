# Nine domains with experts in every layer, and in the head's predictors alone, from scratch on two
# cores, beside static networks of about the head's time per image on a CPU and of its
# multiply-adds. Rates and length are those that were best for the static network and for experts
# without the head in domains.py, a study for a GPU.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 50
baseline = 'static'

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
everywhere = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8-everywhere_1xb8-25e_domains.py'
head = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8-head_1xb8-25e_domains.py'
paper = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'


def at(rate):
    return {'train_dataloader.batch_size': 32, 'optim_wrapper.optimizer.lr': rate}


arms = {
    'static': dict(config=static, cfg_options=at(8e-3)),
    'everywhere': dict(config=everywhere, cfg_options=at(2e-3)),
    'head': dict(config=head, cfg_options=at(8e-3)),
    'static_w0.36': dict(
        config=static, cfg_options={**_base_.domains_widths[36], **at(8e-3)}, baseline='head'
    ),
    'paper': dict(config=paper, cfg_options=at(2e-3)),
    'static_same-madds': dict(
        config=static,
        cfg_options=at(8e-3),
        baseline='head',
        equal_cost=dict(to='head', by='multiply_adds', variants=_base_.domains_widths[25:30]),
    ),
}
