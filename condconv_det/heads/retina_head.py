"""RetinaNet's heads with routed towers and predictors."""

from typing import Any

from mmdet.models.dense_heads import RetinaHead, RetinaSepBNHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmengine.registry import MODELS

from condconv_det.layers import CondConv2d
from condconv_det.layers.cond_cfg import parse_head_cond_cfg

from .routed_head import RoutedHead

PARTS = ('towers', 'predictors')


class RoutedRetina(RoutedHead, AnchorHead):
    """What `cond_cfg` adds to both of mmdet's heads; mixed in before them.

    `conv_cfg` reaches their towers alone; the predictors are `nn.Conv2d`, whatever it says.
    """

    def __init__(self, *args: Any, cond_cfg: dict | None = None, **kwargs: Any) -> None:
        cond, parts = None, ()
        if cond_cfg is not None:
            cond_cfg = dict(cond_cfg)
            parts = cond_cfg.pop('parts', PARTS)
            if not parts or not set(parts) <= set(PARTS):
                raise ValueError(f'cond_cfg.parts must be among {PARTS}, got {parts!r}')
            cond = parse_head_cond_cfg(cond_cfg)
        if 'towers' in parts:
            if kwargs.get('conv_cfg') is not None:
                raise ValueError(
                    f'cond_cfg routes the towers, so conv_cfg must be None, '
                    f'got {kwargs["conv_cfg"]}'
                )
            kwargs['conv_cfg'] = dict(type='CondConv2d', **cond)
        # read by _init_layers, which mmdet's constructor calls
        self.predictor_cond = cond if 'predictors' in parts else None
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.predictor_cond is not None:
            self.retina_cls = CondConv2d.from_conv(self.retina_cls, **self.predictor_cond)
            self.retina_reg = CondConv2d.from_conv(self.retina_reg, **self.predictor_cond)


@MODELS.register_module()
class CondConvRetinaHead(RoutedRetina, RetinaHead):
    """mmdet's `RetinaHead`, with its arguments and parameter names; with `cond_cfg`, routed.

    The head is shared by all levels of the pyramid, and each level is routed by its own features.

    Args:
        cond_cfg: `dict(num_experts, routing=dict(), parts=('towers', 'predictors'))`; `parts` says
            which convolutions are routed. None is the static head.
        kwargs: RetinaHead's arguments.

    Raises:
        ValueError: `cond_cfg` has an unknown key or a value out of range, or comes with a
            `conv_cfg` for the same towers.
    """


@MODELS.register_module()
class CondConvRetinaSepBNHead(RoutedRetina, RetinaSepBNHead):
    """mmdet's `RetinaSepBNHead`, whose levels share convolutions but not norms; routed likewise.

    Arguments, shapes and errors are those of `CondConvRetinaHead`.
    """
