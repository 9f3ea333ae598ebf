# The same objects in one look and in three, with experts in the head alone, and as many images in
# all as shapes_head.py has of six.
#     python tools/make_shapes.py data/shapes_1-look --domains daylight
#     python tools/make_shapes.py data/shapes_3-looks --domains daylight thermal sketch
seeds = (0, 1, 2)
epochs = 5
baseline = 'static_3-looks'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'


def on(data):
    files = {
        f'{split}_evaluator.ann_file': f'{data}/annotations/{split}.json'
        for split in ('val', 'test')
    }
    folders = {
        f'{split}_dataloader.dataset.data_root': f'{data}/' for split in ('train', 'val', 'test')
    }
    return {**files, **folders, 'optim_wrapper.optimizer.lr': 16e-3}


arms = {}
for looks, data in {'3-looks': 'data/shapes_3-looks', '1-look': 'data/shapes_1-look'}.items():
    arms[f'static_{looks}'] = dict(config=static, cfg_options=on(data), baseline=f'static_{looks}')
    arms[f'head_{looks}'] = dict(config=head, cfg_options=on(data), baseline=f'static_{looks}')
