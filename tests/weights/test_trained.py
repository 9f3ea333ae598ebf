import pytest
import torch
from mmdet.models.dense_heads import FCOSHead
from mmengine.registry import DefaultScope
from torch import nn

from condconv_det import CondConv2d
from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.weights.trained import read_trained


def network(num_experts=2):
    return nn.Sequential(CondConv2d(3, 4, 1, num_experts=num_experts), nn.BatchNorm2d(4))


def test_weights_and_meta_of_the_very_network(tmp_path):
    own = network()
    torch.save(dict(state_dict=own.state_dict(), meta=dict(epoch=3)), tmp_path / 'own.pth')
    weights, meta = read_trained(network(), tmp_path / 'own.pth')
    assert meta == dict(epoch=3)
    torch.testing.assert_close(dict(weights), dict(own.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    'other, says',
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 'it lacks 0.router.fc.bias, 0.rou'),
        (nn.Sequential(*network(), nn.PReLU()), 'the network has no 2.weight$'),
        (network(num_experts=5), 'shapes differ in 0.router.fc.bias, 0.router.fc.weight, 0.weight'),
    ],
)
def test_any_other_is_refused(tmp_path, other, says):
    torch.save(other.state_dict(), tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=f'other.pth does not fit Sequential .*: {says}'):
        read_trained(network(), tmp_path / 'other.pth')


def test_buffers_that_are_not_saved_any_more_are_left_out(tmp_path):
    own = network()
    own.register_buffer('mean', torch.zeros(3), persistent=False)
    weights = own.state_dict()
    torch.save(dict(weights, mean=torch.ones(3)), tmp_path / 'older.pth')
    assert read_trained(own, tmp_path / 'older.pth')[0].keys() == weights.keys()


def test_names_that_older_files_of_fcos_have_are_known(tmp_path):
    own = network()
    with DefaultScope.overwrite_default_scope('mmdet'):
        own.bbox_head = FCOSHead(num_classes=2, in_channels=4, feat_channels=4, norm_cfg=None)
    weights = own.state_dict()
    older = {name.replace('.conv_', '.fcos_'): value for name, value in weights.items()}
    torch.save(older, tmp_path / 'older.pth')
    assert 'bbox_head.fcos_cls.weight' in older
    assert read_trained(own, tmp_path / 'older.pth')[0].keys() == weights.keys()
