"""DyHead and GLIP's DyConv: one level's offsets for the smaller output of the next.

tests/compat/mmcv_ext/test_deform_conv.py says which of them are read.
"""

import pytest
import torch
from mmdet.models.dense_heads.atss_vlfusion_head import Conv3x3Norm, DyConv
from mmdet.registry import MODELS
from mmdet_detectors import FROM_SCRATCH, NO_DOWNLOAD, mmdet_config, two_images
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

from condconv_det.layers import CondConv2d

CONFIG = 'dyhead/atss_r50_fpn_dyhead_1x_coco'
SMALL = {
    **FROM_SCRATCH,
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
    'model.neck.0.in_channels': [8, 16, 32, 64],
    'model.neck.0.out_channels': 16,
    'model.neck.1.in_channels': 16,
    'model.neck.1.out_channels': 16,
    'model.neck.1.num_blocks': 2,
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
}
SWITCHED = {
    'model.backbone.type': 'CondConvResNet',
    'model.backbone.cond_cfg': dict(num_experts=2),
}
long = pytest.mark.long


@pytest.mark.parametrize(
    'options, side, switched',
    [
        pytest.param({**SMALL, **SWITCHED}, 128, True, id='small, CondConv'),
        pytest.param(NO_DOWNLOAD, 128, False, id='as it is', marks=long),
        pytest.param({**NO_DOWNLOAD, **SWITCHED}, 128, True, id='CondConv', marks=long),
    ],
)
def test_mmdets_config_trains_a_step_and_predicts(options, side, switched):
    init_default_scope('mmdet')
    model = MODELS.build(mmdet_config(CONFIG, options).model)
    model.init_weights()
    model.train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    # the rate of the config, and no warm-up
    optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    images = two_images(side)
    for _ in range(2):  # offsets start at zero, and their kernel's gradient with them
        log = model.train_step(images, optim_wrapper)
    assert all(value.isfinite().all() for value in log.values())
    assert any(isinstance(layer, CondConv2d) for layer in model.modules()) == switched
    moved = {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    offsets = {name for name in before if 'spatial_conv_offset' in name}
    assert offsets and offsets <= moved
    assert not [name for name in before if 'dyhead_blocks' in name and name not in moved]

    model.eval()
    with torch.no_grad():
        (found, _) = model.test_step(images)
    assert found.pred_instances.scores.isfinite().all()


def test_a_dyconv_of_glip_gives_every_parameter_a_gradient():
    layer = DyConv(
        lambda *channels_and_stride: Conv3x3Norm(
            *channels_and_stride, use_dcn=True, norm_type=['gn', 4]
        ),
        8,
        8,
        use_dyfuse=True,
        use_dyrelu=False,
        use_dcn=True,
    )
    maps = [torch.randn(2, 8, side, side, requires_grad=True) for side in (9, 5, 3)]
    outs = layer(dict(visual=maps, lang=None))['visual']
    assert [out.shape for out in outs] == [each.shape for each in maps]
    sum(out.square().mean() for out in outs).backward()
    for name, value in layer.named_parameters():
        assert value.grad.isfinite().all() and value.grad.any(), name
    assert all(each.grad.any() for each in maps)
