# Nine domains, short: as domains_everywhere.py, but fifteen epochs, with a static network at twice
# the rate, and with experts in the head alone, the other kernels moving as far as experts do. In
# `head_matched` all learns as in the static network, but for the routers. Beside it stand static
# networks of the same multiply-adds, and of about the same time per image on a CPU.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
# 15 epochs * 40 steps of 32 images = 600 steps
epochs = 15
baseline = 'static_lr0.008'

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
everywhere = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8-everywhere_1xb8-25e_domains.py'
head = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8-head_1xb8-25e_domains.py'
paper = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'


def at(config, rate, options={}):
    options = {
        **options,
        'train_dataloader.batch_size': 32,
        'optim_wrapper.optimizer.lr': rate,
    }
    return dict(config=config, cfg_options=options)


arms = {
    'static_lr0.008': at(static, 8e-3),
    'everywhere_lr0.002': at(everywhere, 2e-3),
    'static_lr0.016': at(static, 16e-3),
    'head_lr0.002': at(static, 2e-3, _base_.head),
    'head_matched_lr0.008': at(head, 8e-3),
    'paper_lr0.002': at(paper, 2e-3),
    'static_same-madds_lr0.008': dict(
        at(static, 8e-3),
        baseline='head_matched_lr0.008',
        equal_cost=dict(
            to='head_matched_lr0.008',
            by='multiply_adds',
            variants=_base_.domains_widths[25:30],
        ),
    ),
    'static_w0.36_lr0.008': dict(
        at(static, 8e-3, _base_.domains_widths[36]), baseline='head_matched_lr0.008'
    ),
}
