"""Published networks that are ours under other names: one table per library."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.registry import DefaultScope
from torch import nn

from condconv_det.backbones import CondConvEfficientNet

from .names import (
    MMPRETRAIN_V2,
    TIMM,
    TIMM_V3,
    TORCHVISION_MNASNET,
    TORCHVISION_V2,
    Names,
    torchvision_names,
)

TF_SAME = dict(type='Conv2dAdaptivePadding')
BN = dict(type='BN', eps=1e-5)
TF_BN = dict(type='BN', eps=1e-3)
SCALES = {f'b{scale}': CondConvEfficientNet.arch_settings[f'b{scale}'][2] for scale in range(8)}
DEPTHS = (18, 34, 50, 101, 152)
V3_LAST_LAYER = dict(small=12, large=16)


@dataclass(frozen=True)
class Source:
    """A network of a library, and ours that computes the same.

    Args:
        package, arch: 'timm', 'torchvision', 'mmdet' or 'mmpretrain', and its name there.
        backbone: our config, which returns the last map alone.
        features: name of the module of the library's network that returns that map.
        classifier: names of the library's linear layers after it, in order.
        names: how the library names the rest; None as we do.
        side: of its images, in pixels.
    """

    package: str
    arch: str
    backbone: dict[str, Any]
    features: str
    classifier: tuple[str, ...] = ()
    names: Names | None = None
    side: int = 224

    @property
    def our_classifier(self) -> tuple[str, ...]:
        """Our names of the classifier's layers, those of mmpretrain's heads."""
        stacked = tuple(f'head.layers.{index}.fc' for index in range(len(self.classifier)))
        return stacked if len(stacked) > 1 else ('head.fc',)[: len(stacked)]

    def build(self, widths: Sequence[int]) -> nn.Module:
        """The library's network with random weights.

        Args:
            widths: channels before, between and after the classifier's layers; empty without one.

        Raises:
            ImportError: the library is not installed.
        """
        # whatever scope the process is in; None, for the others, changes nothing
        scope = self.package if self.package in ('mmdet', 'mmpretrain') else None
        with DefaultScope.overwrite_default_scope(scope):
            return BUILDERS[self.package](self, widths)


def find_source(library: str, arch: str) -> Source:
    """A network of the tables.

    Raises:
        ValueError: there is no such library or network; it lists those there are.
    """
    if library not in SOURCES:
        raise ValueError(f'the library must be one of {list(SOURCES)}, got {library!r}')
    if arch not in SOURCES[library]:
        known = ', '.join(SOURCES[library])
        raise ValueError(f'{library} has no network {arch!r} that can be converted, but {known}')
    return SOURCES[library][arch]


def _v1(width: float) -> dict[str, Any]:
    return dict(
        type='CondConvMobileNetV1', widen_factor=width, out_indices=(4,), conv_cfg=None, norm_cfg=BN
    )


def _v2(width: float) -> dict[str, Any]:
    return dict(type='CondConvMobileNetV2', widen_factor=width, out_indices=(7,))


def _v3(size: str, norm_cfg: dict = TF_BN, conv_cfg: dict | None = None) -> dict[str, Any]:
    return dict(
        type='CondConvMobileNetV3',
        arch=size,
        out_indices=(V3_LAST_LAYER[size],),
        conv_cfg=conv_cfg,
        norm_cfg=norm_cfg,
    )


def _mnasnet(arch: str, width: float) -> dict[str, Any]:
    return dict(type='CondConvMnasNet', arch=arch, widen_factor=width, out_indices=(7,))


def _efficientnet(
    scale: str, conv_cfg: dict | None = TF_SAME, norm_cfg: dict = TF_BN, **kwargs: Any
) -> dict[str, Any]:
    return dict(
        type='CondConvEfficientNet',
        arch=scale,
        out_indices=(6,),
        conv_cfg=conv_cfg,
        norm_cfg=norm_cfg,
        **kwargs,
    )


def _resnet(depth: int) -> dict[str, Any]:
    return dict(type='CondConvResNet', depth=depth, out_indices=(3,))


def _timm_sources() -> list[Source]:
    def source(arch: str, backbone: dict, features: str = 'bn2', side: int = 224) -> Source:
        return Source('timm', arch, backbone, features, ('classifier',), TIMM, side)

    def v3(arch: str, backbone: dict) -> Source:
        return Source('timm', arch, backbone, 'blocks', ('conv_head', 'classifier'), TIMM_V3)

    def routed(experts: int) -> dict:
        return dict(cond_cfg=dict(num_experts=experts))

    return [
        *(source(f'mobilenetv1_{w}', _v1(w / 100), 'blocks') for w in (100, 125)),
        *(source(f'mobilenetv2_{w:03}', _v2(w / 100)) for w in (35, 50, 75, 100, 140)),
        *(v3(f'mobilenetv3_{size}_100', _v3(size, BN)) for size in V3_LAST_LAYER),
        *(v3(f'tf_mobilenetv3_{size}_100', _v3(size, TF_BN, TF_SAME)) for size in V3_LAST_LAYER),
        *(source(f'mnasnet_{w:03}', _mnasnet('b1', w / 100)) for w in (50, 75, 100, 140)),
        *(source(f'semnasnet_{w:03}', _mnasnet('a1', w / 100)) for w in (50, 75, 100, 140)),
        *(
            source(f'efficientnet_{scale}', _efficientnet(scale, None, BN), side=side)
            for scale, side in SCALES.items()
        ),
        *(
            source(f'tf_efficientnet_{scale}', _efficientnet(scale), side=side)
            for scale, side in SCALES.items()
        ),
        source('tf_efficientnet_cc_b0_4e', _efficientnet('b0', **routed(4))),
        source('tf_efficientnet_cc_b0_8e', _efficientnet('b0', **routed(8))),
        source('tf_efficientnet_cc_b1_8e', _efficientnet('b1', **routed(8)), side=240),
        *(Source('timm', f'resnet{d}', _resnet(d), 'layer4', ('fc',)) for d in DEPTHS),
    ]


def _torchvision_sources() -> list[Source]:
    def source(arch: str, backbone: dict, features: str, *rest: Any) -> Source:
        return Source('torchvision', arch, backbone, features, *rest)

    def efficientnet(scale: str) -> dict:
        return _efficientnet(scale, None, BN if scale < 'b5' else TF_BN)

    last = ('classifier.1',)
    return [
        source('mobilenet_v2', _v2(1.0), 'features', last, TORCHVISION_V2),
        *(
            source(
                f'mobilenet_v3_{size}',
                _v3(size),
                'features',
                ('classifier.0', 'classifier.3'),
                torchvision_names(r'features\.\d+\.block\.', last_layer),
            )
            for size, last_layer in V3_LAST_LAYER.items()
        ),
        *(
            source(arch, _mnasnet('b1', width), 'layers', last, TORCHVISION_MNASNET)
            for arch, width in (
                ('mnasnet0_5', 0.5),
                ('mnasnet0_75', 0.75),
                ('mnasnet1_0', 1.0),
                ('mnasnet1_3', 1.3),
            )
        ),
        *(
            source(
                f'efficientnet_{scale}',
                efficientnet(scale),
                'features',
                last,
                torchvision_names(r'features\.\d+\.\d+\.block\.', 8),
                side,
            )
            for scale, side in SCALES.items()
        ),
        *(source(f'resnet{depth}', _resnet(depth), 'layer4', ('fc',)) for depth in DEPTHS),
    ]


def _mmdet_sources() -> list[Source]:
    return [
        Source('mmdet', 'mobilenet_v2', _v2(1.0), 'backbone'),
        *(
            Source('mmdet', f'efficientnet_{scale}', _efficientnet(scale), 'backbone', side=side)
            for scale, side in SCALES.items()
        ),
        *(Source('mmdet', f'resnet{depth}', _resnet(depth), 'backbone') for depth in DEPTHS),
    ]


def _mmpretrain_sources() -> list[Source]:
    def source(arch: str, backbone: dict, names: Names | None = None, side: int = 224) -> Source:
        return Source('mmpretrain', arch, backbone, 'backbone', ('head.fc',), names, side)

    stacked = ('head.layers.0.fc', 'head.layers.1.fc')
    return [
        source('mobilenet_v2', _v2(1.0), MMPRETRAIN_V2),
        *(
            Source('mmpretrain', f'mobilenet_v3_{size}', _v3(size), 'backbone', stacked)
            for size in V3_LAST_LAYER
        ),
        *(
            source(f'efficientnet_{scale}', _efficientnet(scale), side=side)
            for scale, side in SCALES.items()
        ),
        *(source(f'resnet{depth}', _resnet(depth)) for depth in DEPTHS),
    ]


SOURCES: dict[str, dict[str, Source]] = {
    library: {source.arch: source for source in sources}
    for library, sources in (
        ('timm', _timm_sources()),
        ('torchvision', _torchvision_sources()),
        ('mmdet', _mmdet_sources()),
        ('mmpretrain', _mmpretrain_sources()),
    )
}


def _build_timm(source: Source, widths: Sequence[int]) -> nn.Module:
    import timm

    return timm.create_model(source.arch, pretrained=False, num_classes=_classes(widths))


def _build_torchvision(source: Source, widths: Sequence[int]) -> nn.Module:
    from torchvision.models import get_model

    return get_model(source.arch, weights=None, num_classes=_classes(widths))


def _build_mmdet(source: Source, widths: Sequence[int]) -> nn.Module:
    from mmdet.registry import MODELS

    network = nn.Sequential()
    network.add_module('backbone', MODELS.build(_their_config(source)))
    return network


def _build_mmpretrain(source: Source, widths: Sequence[int]) -> nn.Module:
    from mmpretrain.models import ImageClassifier

    head = None
    if widths:
        before, *hidden, classes = widths
        head = dict(type='LinearClsHead', in_channels=before, num_classes=classes)
        if hidden:
            head |= dict(
                type='StackedLinearClsHead', mid_channels=hidden, act_cfg=dict(type='HSwish')
            )
    return ImageClassifier(_their_config(source), dict(type='GlobalAveragePooling'), head)


def _classes(widths: Sequence[int]) -> int:
    return widths[-1] if widths else 1000


def _their_config(source: Source) -> dict[str, Any]:
    """mmdet's and mmpretrain's backbones take the arguments that ours do."""
    return {**source.backbone, 'type': source.backbone['type'].removeprefix('CondConv')}


BUILDERS = dict(
    timm=_build_timm,
    torchvision=_build_torchvision,
    mmdet=_build_mmdet,
    mmpretrain=_build_mmpretrain,
)
