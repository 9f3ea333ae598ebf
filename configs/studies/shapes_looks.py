# The same objects in one look and in three, and as many images in all as shapes_design.py has of
# six. Rates are those that were best there; `static_fast-everywhere` is the static network at
# everywhere's rates, and `head` has experts in the head alone, which learn as it does at its own.
#     python tools/make_shapes.py data/shapes_1-look --domains daylight
#     python tools/make_shapes.py data/shapes_3-looks --domains daylight thermal sketch
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
epochs = 5
baseline = 'static_3-looks'

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
everywhere = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-everywhere_1xb8-5e_shapes.py'
head = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'


def on(data, rate, options={}):
    files = {
        f'{split}_evaluator.ann_file': f'{data}/annotations/{split}.json'
        for split in ('val', 'test')
    }
    folders = {
        f'{split}_dataloader.dataset.data_root': f'{data}/' for split in ('train', 'val', 'test')
    }
    return {**options, **files, **folders, 'optim_wrapper.optimizer.lr': rate}


arms = {}
for looks, data in {'3-looks': 'data/shapes_3-looks', '1-look': 'data/shapes_1-look'}.items():
    ours = dict(baseline=f'static_{looks}')
    arms[f'static_{looks}'] = dict(config=static, cfg_options=on(data, 16e-3), **ours)
    arms[f'static_fast-everywhere_{looks}'] = dict(
        config=static, cfg_options=on(data, 4e-3, _base_.fast_everywhere), **ours
    )
    arms[f'head_{looks}'] = dict(config=head, cfg_options=on(data, 16e-3), **ours)
    arms[f'everywhere_{looks}'] = dict(config=everywhere, cfg_options=on(data, 4e-3), **ours)
