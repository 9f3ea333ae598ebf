from torch.nn.modules.batchnorm import _BatchNorm

from condconv_det.backbones import CondConvMobileNetV1


def test_frozen_stages_stay_in_eval_mode_while_the_others_train():
    model = CondConvMobileNetV1(0.25, frozen_stages=1, cond_cfg=dict(num_experts=2))
    for _ in range(2):
        model.train()
        training = {
            name.split('.')[0]: module.training
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm)
        }
        assert training == {
            'conv1': False, 'layer1': False, 'layer2': True, 'layer3': True, 'layer4': True,
            'layer5': True,
        }  # fmt: skip
