"""Parameters and multiply-adds of a network."""

import copy
from dataclasses import dataclass
from math import prod

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from condconv_det.layers import Experts, Router

from .configs import build_model, first_dataset, type_name


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Args:
        parameters: of the whole network.
        expert_parameters: those among them that are experts' kernels and matrices.
        multiply_adds: of convolutions and matrix products, mixing and routing included; norms,
            activations, pooling and the sampling of deformable convolutions are not counted, as in
            the paper.
        mixing: those that mix kernels from experts, one for each expert parameter, and in a head of
            regions for each of these.
        routing: those of the routers' linear layers.
    """

    parameters: int
    expert_parameters: int
    multiply_adds: int
    mixing: int
    routing: int


def measure_cost(model: nn.Module, image: Tensor, **forward_kwargs) -> Cost:
    """Counts a network's parameters, and its multiply-adds for one image.

    Args:
        model: any network; it runs once, in eval mode.
        image: [1, C, H, W]; only its shape matters.
        forward_kwargs: go to `model.forward` with the image, such as mmdet's `mode='tensor'`.
    """
    mixing: list[int] = []
    routing: list[int] = []

    def count(layer: Experts | Router, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        examples = len(inputs[0])  # one image, or its regions
        if isinstance(layer, Experts):
            mixing.append(examples * layer.weight.numel())
        else:
            routing.extend(examples * fc.weight.numel() for fc in layer.children())

    routed = [layer for layer in model.modules() if isinstance(layer, Experts | Router)]
    hooks = [layer.register_forward_hook(count) for layer in routed]
    was_training = model.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    uncounted = {torch.ops.torchvision.deform_conv2d: _deform_conv_flops}
    if hasattr(torch.ops.aten, '_scaled_dot_product_flash_attention_for_cpu'):  # torch 2.2 or later
        uncounted[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = _attention_flops
    counter = FlopCounterMode(display=False, custom_mapping=uncounted)
    model.eval()
    # the counter looks for gradients of a part of a parameter, such as Deformable DETR's queries
    model.requires_grad_(False)
    try:
        with counter, torch.no_grad():
            model(image, **forward_kwargs)
    finally:
        model.train(was_training)
        for parameter in trained:
            parameter.requires_grad_()
        for hook in hooks:
            hook.remove()
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        expert_parameters=sum(
            layer.weight.numel() for layer in routed if isinstance(layer, Experts)
        ),
        # the counter counts a multiplication and an addition as two
        multiply_adds=counter.get_total_flops() // 2,
        mixing=sum(mixing),
        routing=sum(routing),
    )


def _deform_conv_flops(
    x: torch.Size, weight: torch.Size, *_, out_shape: torch.Size, **kwargs
) -> int:
    """A plain convolution's, of which PyTorch counts a multiply-add as two."""
    return 2 * out_shape[0] * prod(out_shape[2:]) * prod(weight)


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the images that a config's test pipeline makes.

    Raises:
        ValueError: there is no test pipeline, or it neither resizes to a given size nor crops.
    """
    dataset = first_dataset(cfg)
    if dataset.get('pipeline') is None:
        raise ValueError(
            f'{cfg.filename} has no test_dataloader with a pipeline, whose size would be used; '
            'give one'
        )
    for transform in reversed(dataset.pipeline):
        if type_name(transform.type) == 'Resize' and 'scale' in transform:
            scale = transform.scale
            width, height = (scale, scale) if isinstance(scale, int) else scale
            return height, width
        if transform.get('crop_size'):  # CornerNet's is None in tests
            side = transform.crop_size
            return (side, side) if isinstance(side, int) else tuple(side)
    raise ValueError('the test pipeline has no Resize with a scale and no crop; give a size')


def build_network(
    cfg: Config, size: tuple[int, int] | None = None
) -> tuple[nn.Module, Tensor, dict]:
    """Builds a config's detector or classifier, an image for it, and what `forward` takes beside.

    Args:
        cfg: the config, which is not changed; of a teacher and a student one is built.
        size: height and width of the image, which is padded as the network's data preprocessor
            does; None is the config's test size.

    Returns:
        The network, zeros [1, 3, H, W], and the other arguments.
    """
    shape = size or image_size(cfg)
    cfg = _of_one_detector(cfg)
    model = build_model(cfg)
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    padded = tuple(-(-side // divisor) * divisor for side in shape)
    inputs = dict(mode='tensor')
    if cfg.get('default_scope', 'mmdet') == 'mmdet':
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                batch_input_shape=padded,
                pad_shape=padded,
                scale_factor=(1.0, 1.0),
            )
        )
        inputs['data_samples'] = [sample]
    if cfg.model.get('bbox_head') and cfg.model.get('mask_head'):
        inputs['mode'] = 'predict'  # mode 'tensor' of CondInst and YOLACT computes losses
    return model, torch.zeros(1, 3, *padded), inputs


def measure_config(cfg: Config, size: tuple[int, int] | None = None) -> Cost:
    """Builds a config's detector or classifier and counts what one image costs.

    The second stage of a two-stage detector is counted for as many boxes as its first stage passes
    on at most, and the masks of CondInst and YOLACT for as many as they find at most.

    Args:
        cfg, size: as in `build_network`.
    """
    cfg = _of_one_detector(cfg)
    test_cfg = cfg.model.get('test_cfg') or {}
    # how many boxes of an untrained network overlap, or score enough, is chance
    if 'nms' in (test_cfg.get('rpn') or {}):
        test_cfg.rpn.nms.iou_threshold = 1.0
    if cfg.model.get('bbox_head') and cfg.model.get('mask_head'):
        test_cfg.update(score_thr=0, min_bbox_size=-1)
        if 'nms' in test_cfg:
            test_cfg.nms.iou_threshold = 1.0
        else:  # YOLACT's
            test_cfg.iou_thr = 1.0
    model, image, inputs = build_network(cfg, size)
    if not getattr(model, 'with_roi_head', False):  # which needs boxes
        try:
            # shapes alone decide every figure, and fake tensors have no more
            with FakeTensorMode(allow_non_fake_inputs=True):
                return measure_cost(model, image, **inputs)
        except RuntimeError:  # it looks at values, as deformable attention does
            model, image, inputs = build_network(cfg, size)
    return measure_cost(model, image, **inputs)


def _of_one_detector(cfg: Config) -> Config:
    """A copy, for a semi-supervised detector with one in the place of teacher and student."""
    cfg = copy.deepcopy(cfg)
    if 'semi_test_cfg' in cfg.model:
        detector = cfg.model.detector
        detector.setdefault('data_preprocessor', cfg.model.data_preprocessor.data_preprocessor)
        cfg.model = detector
    return cfg
