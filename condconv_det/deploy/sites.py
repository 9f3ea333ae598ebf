"""One static network for each site, out of one routed network; see docs/sites.md."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from condconv_det.analysis.configs import build_model
from condconv_det.data.whole_files import folder_written_whole
from condconv_det.weights.files import write_checkpoint
from condconv_det.weights.fit import listing
from condconv_det.weights.trained import read_trained

from .agreement import agreement, outputs_error, raw_maps
from .freeze_routing import check_freezable, freeze_routing, kernel_spread, mean_routing
from .site_images import SiteImages, predict, record_routing
from .static_config import static_config

LIMIT = 0.7  # of agreement; docs/sites.md says what it is and where it comes from
NORM_BATCH = 16
SAME = 1e-3  # of outputs, relative: more than rounding makes


@dataclass(frozen=True)
class Site:
    """A static network, and how it stands to the routed one on its images.

    Args:
        images: their number.
        kernels_vary: how far an image's own kernels lie from the site's, relative to these: root
            mean square over the routed layers of `kernel_spread`.
        agreement: of its detections with the routed network's, 0 to 1.
        outputs_error: of its head's raw maps, see `agreement.outputs_error`.
    """

    images: int
    kernels_vary: float
    agreement: float
    outputs_error: float


def freeze_sites(
    cfg: Config,
    checkpoint: Path,
    groups: Mapping[str, Sequence[Path]],
    out: Path,
    limit: float = LIMIT,
    renew_norms: bool = False,
) -> dict[str, Site]:
    """Writes a static config and checkpoint for each group of images.

    Images go through the config's test pipeline, one at a time: in a batch, images of other sizes
    are padded, and routers see the padding.

    Args:
        cfg, checkpoint: of a detector of mmdet or a classifier of mmpretrain; `cfg` is not changed.
        groups: files by the group's name, which becomes, in letters and digits, that of its files.
        out: a folder that does not exist or is empty; it appears when all is written.
        limit: least agreement of a frozen network, before its norms are renewed, with the routed
            one on the group's images.
        renew_norms: whether the batch norms' statistics are measured anew, on the group's images.

    Returns:
        The figures by group; they are in the checkpoints' meta, too.

    Raises:
        ValueError: the network cannot be frozen; a group has one image, or nothing is found in its
            images, or its frozen network agrees with the routed one by less than the limit; no
            static config builds the frozen network; two groups' names make one file's; there are
            no batch norms to renew.
        ImageError: an image cannot be read.
        CheckpointError: the checkpoint is damaged or does not fit the config.
        OSError: there is no such checkpoint, or `out` holds anything or cannot be written.
    """
    stems = _check_groups(groups)
    model = build_model(copy.deepcopy(cfg)).eval()
    check_freezable(model)
    weights, meta = read_trained(model, checkpoint)
    model.load_state_dict(weights)
    if renew_norms and not any(map(_has_statistics, model.modules())):
        raise ValueError(f'{type(model).__name__} has no batch norms whose statistics could be new')
    sites, refused = {}, []
    with folder_written_whole(out) as folder:
        static_cfg = static_config(cfg, model)
        model.to(get_device())
        for name, files in groups.items():
            images = SiteImages(cfg, files)
            expected, routing = record_routing(model, images, f'Routing {name}')
            frozen = freeze_routing(model, mean_routing(routing))
            network = _build_static(static_cfg, frozen, images)
            spreads = kernel_spread(model, routing)
            try:
                agreed = agreement(expected, predict(network, images))
            except ValueError as error:
                raise ValueError(f'site {name}: {error}') from error
            if agreed < limit:
                widest = max(spreads, key=spreads.__getitem__)
                refused.append(
                    f'{name} {agreed:.3f} (kernels vary by {_root_mean_square(spreads):.3f}, most '
                    f'in {widest or "the layer"}, {spreads[widest]:.3f})'
                )
                continue
            if renew_norms:
                renew_statistics(network, images)
                agreed = agreement(expected, predict(network, images))
            site = Site(
                images=len(files),
                kernels_vary=_root_mean_square(spreads),
                agreement=agreed,
                outputs_error=outputs_error(model, network, images.batches()),
            )
            kept = {key: meta[key] for key in ('dataset_meta',) if key in meta}
            origin = dict(asdict(site), site=name, of=Path(checkpoint).name, renewed=renew_norms)
            write_checkpoint(
                folder / f'{stems[name]}.pth', network.state_dict(), dict(kept, frozen=origin)
            )
            static_cfg.dump(folder / f'{stems[name]}.py')
            sites[name] = site
        if refused:
            raise ValueError(
                f'frozen, the network agrees with the routed one by less than {limit:g}: '
                f'{"; ".join(refused)}. Nothing is written: split these images further, leave them '
                'out, or set another limit'
            )
    return sites


@torch.no_grad()
def renew_statistics(model: nn.Module, images: SiteImages) -> None:
    """Replaces the statistics of all batch norms that run by their mean over a site's batches."""
    norms = [module for module in model.modules() if _has_statistics(module)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all calls; the first replaces what there is
        norm.num_batches_tracked.zero_()
        norm.train()
    for batch in images.batches(NORM_BATCH):
        model.test_step(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        norm.eval()


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


@torch.no_grad()
def _build_static(cfg: Config, frozen: nn.Module, images: SiteImages) -> nn.Module:
    """The network of a static config with a frozen network's weights, if they compute the same."""
    network = build_model(copy.deepcopy(cfg)).eval()
    own, theirs = (
        {key: value.shape for key, value in part.state_dict().items()} for part in (network, frozen)
    )
    if own != theirs:
        differing = listing(key for key, _ in own.items() ^ theirs.items())
        raise ValueError(f'no static config builds this network: weights differ in {differing}')
    network.load_state_dict(frozen.state_dict())
    network.to(get_device())
    batch = next(images.batches())
    for own, other in zip(raw_maps(frozen, batch), raw_maps(network, batch)):
        if not (own - other).norm() <= SAME * own.norm():
            raise ValueError(
                f'no static config builds this network: {type(network).__name__} without routed '
                "layers computes something else; has one conv_cfg built convolutions of padding='"
                "same' and others?"
            )
    return network


def _check_groups(groups: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """File names without suffix, by group."""
    lonely = [name for name, files in groups.items() if len(files) < 2]
    if lonely:
        raise ValueError(
            f'a site needs at least 2 images, to see how routing varies; of one image: '
            f'{listing(lonely)}'
        )
    stems = {name: re.sub(r'\W+', '-', name).strip('-') for name in groups}
    if not all(stems.values()) or len(set(stems.values())) < len(stems):
        raise ValueError(
            'names of groups must differ in letters and digits, by which their files are named; '
            f'got {list(groups)}'
        )
    return stems


def _root_mean_square(values: Mapping[Any, float]) -> float:
    return float(np.sqrt(np.mean(np.square(list(values.values())))))
