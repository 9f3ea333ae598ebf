"""Batch norms folded into the convolutions before them.

The arithmetic is torch's `fuse_conv_bn_weights`. Which norm belongs to which convolution is decided
here, not by mmcv's `fuse_conv_bn`: that one changes what some networks compute, silently. It folds
all norms of a shared convolution into it (`RetinaSepBNHead`, `RTMDetSepBNHead`: a norm for each
level), and folds across an activation, into a `ConvModule` that norms first, and into convolutions
that normalize their kernels.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from condconv_det.layers import CondConv2d
from condconv_det.layers.plain_convolutions import PLAIN_CONVOLUTIONS

# A subclass with its own may do more: timm's `BatchNormAct2d` is a norm and an activation.
BATCH_NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of a model, for inference, whose convolutions do the work of the norms after them.

    A norm follows a convolution if it is registered right behind it in the same parent, and
    `nn.Identity` takes its place, as with mmcv's `fuse_conv_bn`. `CondConv2d` has each expert's
    output channels scaled; its router reads the layer's input and sees what it saw. A norm stays
    where it is if its convolution is shared with another one, or is of a class that computes
    something else than `nn.Conv2d` does, or if it keeps no running statistics.

    Raises:
        ValueError: a part of the model is in training mode, where norms use the batch's statistics.
    """
    for name, module in model.named_modules():
        if module.training:
            raise ValueError(
                f'batch norms can be folded in eval mode, but {name or type(model).__name__} is in '
                f'training mode: call model.eval() first'
            )
    model = copy.deepcopy(model)
    for parent, conv, name in list(_foldable_norms(model)):
        norm = getattr(parent, name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
            transpose=isinstance(conv, CondConv2d),  # output channels are the second axis
        )
        setattr(parent, name, nn.Identity().eval())
    return model


def _foldable_norms(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Each norm that can be folded: its parent, the convolution before it, its name."""
    holders = Counter(child for parent in model.modules() for child in parent._modules.values())
    for parent in model.modules():
        if isinstance(parent, ConvModule) and not _norms_what_it_convolved(parent):
            continue
        for (_, conv), (name, norm) in pairwise(parent.named_children()):
            if _is_linear(conv) and _is_fixed(norm) and holders[conv] == 1:
                yield parent, conv, name


def _norms_what_it_convolved(module: ConvModule) -> bool:
    return module.order.index('norm') == module.order.index('conv') + 1


def _is_linear(conv: nn.Module) -> bool:
    # spectral norm and its like put a computed tensor in the parameter's place
    return type(conv) in (*PLAIN_CONVOLUTIONS, CondConv2d) and 'weight' in conv._parameters


def _is_fixed(norm: nn.Module) -> bool:
    return type(norm).forward in BATCH_NORM_FORWARDS and norm.running_mean is not None
