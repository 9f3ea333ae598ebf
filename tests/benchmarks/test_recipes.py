"""The table of training steps, from real steps."""

import re
from pathlib import Path

import pytest

from benchmarks import recipes
from condconv_det.compat.fused_optimizers import FusedOnGPUs

CONFIG = Path(__file__).parents[2] / (
    'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
)


@pytest.mark.long
def test_each_form_is_compared_with_the_static_twin(capsys):
    recipes.main([str(CONFIG), '--batch', '2', '--rounds', '1'])
    title, _, header, _, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith(f'{CONFIG.name}, batch 2, ')
    assert [row.split(' | ')[0].strip('| ') for row in rows] == list(recipes.FORMS)
    assert re.fullmatch(r'\| static \| \d+ \| 1\.00 \| \d+ \| 1\.00 \|', rows[0])
    assert all(
        re.fullmatch(r'\| .+ \| \d+ \| \d+\.\d\d \| \d+ \| \d+\.\d\d \|', row) for row in rows
    )


def test_a_step_moves_the_weights_as_the_recipe_says(monkeypatch):
    seen = []
    build = recipes.build_optim_wrapper
    monkeypatch.setattr(
        recipes, 'build_optim_wrapper', lambda *args: seen.append(build(*args)) or seen[-1]
    )
    cfg = recipes.Config.fromfile(CONFIG)
    step = recipes.recipe_step(cfg, batch=2, fused=True)
    (wrapper,) = seen
    before = [param.detach().clone() for param in wrapper.param_groups[0]['params']]
    step()
    assert wrapper.clip_grad_kwargs == {'max_norm': 10.0}
    assert wrapper.optimizer.defaults['fused'] or isinstance(wrapper.optimizer, FusedOnGPUs)
    after = wrapper.param_groups[0]['params']
    assert any(not old.equal(new) for old, new in zip(before, after))
