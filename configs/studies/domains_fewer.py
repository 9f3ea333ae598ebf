# One, three and nine domains, 128 training images in all: does the head gain more from more
# domains? Chess alone, cards alone, these two and tables together, and all nine; rates are the best
# ones of domains_15e.py.
#     python tools/select_images.py data/domains data/domains_chess --key domain \
#         --values chess --num-train 128
#     python tools/select_images.py data/domains data/domains_cards --key domain \
#         --values cards --num-train 128
#     python tools/select_images.py data/domains data/domains_3 --key domain \
#         --values chess cards tables --num-train 128
#     python tools/select_images.py data/domains data/domains_9 --key domain \
#         --values blood aquarium cards chess tables pcb rabbits masks teeth --num-train 128
seeds = (0, 1, 2)
# 120 epochs * 4 steps of 32 images = 480 steps
epochs = 120
baseline = 'static_9'

static = '../domains/ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'
head = '../domains/ssd192_mobilenet-v1-0.25-condconv-e8-head_1xb8-25e_domains.py'


def on(data):
    files = {
        f'{split}_evaluator.ann_file': f'{data}/annotations/{split}.json'
        for split in ('val', 'test')
    }
    folders = {
        f'{split}_dataloader.dataset.data_root': f'{data}/' for split in ('train', 'val', 'test')
    }
    rate = {'train_dataloader.batch_size': 32, 'optim_wrapper.optimizer.lr': 8e-3}
    return {**files, **folders, **rate}


arms = {}
for part in ('9', '3', 'chess', 'cards'):
    options = on(f'data/domains_{part}')
    arms[f'static_{part}'] = dict(config=static, cfg_options=options, baseline=f'static_{part}')
    arms[f'head_{part}'] = dict(config=head, cfg_options=options, baseline=f'static_{part}')
