"""Arms that cost what another one does, by that of their variants which comes nearest."""

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from condconv_det.analysis.configs import errors_named
from condconv_det.analysis.cost import image_size, measure_config
from condconv_det.data.whole_files import written_whole

from .plan import Arm, Study
from .report import time_per_image

CHOSEN = 'equal_cost.json'
TOLERANCE = 0.03


def fit_costs(study: Study, out: Path) -> Study:
    """The study, each arm that is to cost what another does in the variant that comes nearest.

    What is chosen is written into `equal_cost.json`. A study that goes on keeps to it, unless the
    networks or their images have changed.

    Args:
        study: as it was read.
        out: its folder.

    Raises:
        ValueError: no variant of an arm comes within 3 percent of the other's cost, or one makes no
            network.
    """
    path = out / CHOSEN
    chosen = json.loads(path.read_text()) if path.exists() else {}
    arms = dict(study.arms)
    for name, arm in study.arms.items():
        if arm.equal_cost is None:
            continue
        asked = dict(to=arm.equal_cost.to, by=arm.equal_cost.by)
        kept = chosen.get(name, {})
        with errors_named(f'arm {name!r}: equal_cost'):
            asked['networks'] = _fingerprint(arm, study.arms[asked['to']])
            variants = {str(each): with_options(arm, each) for each in arm.equal_cost.variants}
            if not kept.items() >= asked.items() or kept['variant'] not in variants:
                chosen[name] = asked | _nearest(variants, study.arms[asked['to']], asked['by'])
        arms[name] = variants[chosen[name]['variant']]
    if chosen:
        with written_whole(path) as partial:
            partial.write_text(json.dumps(chosen, indent=1))
    return replace(study, arms=arms)


def with_options(arm: Arm, options: dict[str, Any]) -> Arm:
    """The arm with options merged into its config."""
    cfg = copy.deepcopy(arm.cfg)
    cfg.merge_from_dict(options)
    return replace(arm, cfg=cfg)


def _fingerprint(*arms: Arm) -> str:
    """Of all that decides what the arms cost."""
    costly = [(arm.cfg.model.to_dict(), image_size(arm.cfg)) for arm in arms]
    return hashlib.sha256(repr(costly).encode()).hexdigest()[:16]


def _nearest(variants: dict[str, Arm], other: Arm, by: str) -> dict[str, Any]:
    costs = _costs({'': other, **variants}, by)
    target = costs.pop('')
    nearest = min(costs, key=lambda variant: abs(costs[variant] - target))
    ratio = costs[nearest] / target
    if abs(ratio - 1) > TOLERANCE:
        raise ValueError(
            f'arm {variants[nearest].name!r} is to cost what {other.name!r} does in {by}, within '
            f'{TOLERANCE:.0%}; the nearest of its variants, {nearest}, costs {ratio:.2f} times that'
        )
    return dict(variant=nearest, cost=costs[nearest], of_the_other=target)


def _costs(arms: dict[str, Arm], by: str) -> dict[str, float]:
    if by == 'multiply_adds':
        return {name: measure_config(arm.cfg).multiply_adds for name, arm in arms.items()}
    return time_per_image([replace(arm, name=name) for name, arm in arms.items()])
