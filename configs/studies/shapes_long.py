# A small network, six looks of the same objects, 120,000 images seen: where capacity should tell.
# Arms as in shapes.py. Its images: tools/make_shapes.py data/shapes_long --train 6000 --val 300
# --test 600. A study for a GPU.
_base_ = './_base_/switch.py'

seeds = (0, 1, 2)
# 20 epochs * 94 steps of 64 images = 1,880 steps
epochs = 20
baseline = 'static'
learning_rates = (8e-3, 16e-3, 32e-3)
quartered = (2e-3, 4e-3, 8e-3)

static = '../shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
condconv = '../shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
data = {
    f'{split}_dataloader.dataset.data_root': 'data/shapes_long/'
    for split in ('train', 'val', 'test')
} | {
    f'{split}_evaluator.ann_file': f'data/shapes_long/annotations/{split}.json'
    for split in ('val', 'test')
}


def width(factor):
    channels = [round(factor * number) for number in (256, 512, 1024, 512, 256)]
    return {
        **data,
        'train_dataloader.batch_size': 64,
        'model.backbone.widen_factor': factor,
        'model.neck.in_channels': channels[:3],
        'model.neck.out_channels': channels,
        'model.bbox_head.in_channels': channels,
    }


quarter = width(0.25)
early = {**quarter, **_base_.early}
widths = [width(factor / 100) for factor in (*range(25, 32), *range(56, 80, 2))]
arms = {
    'static': dict(config=static, cfg_options=quarter),
    'early': dict(config=condconv, cfg_options=early, learning_rates=quartered),
    'paper': dict(config=condconv, cfg_options=quarter, learning_rates=quartered),
    'static_same-madds': dict(
        config=static,
        cfg_options=data,
        equal_cost=dict(to='early', by='multiply_adds', variants=widths),
    ),
    'static_same-time': dict(
        config=static,
        cfg_options=data,
        equal_cost=dict(to='early', by='seconds_per_image', variants=widths),
    ),
}
