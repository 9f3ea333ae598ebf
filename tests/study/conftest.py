from pathlib import Path

import pytest

from condconv_det.study.plan import Study

CONFIGS = Path(__file__).parents[2] / 'configs'
SHAPES = CONFIGS / 'shapes' / 'ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'


@pytest.fixture
def read(tmp_path):
    """Reads a study file that says nothing unusual but what is given, as source text."""

    def read(**lines):
        usual = dict(
            seeds='(0, 1)',
            epochs='3',
            baseline="'static'",
            arms=f'dict(static=dict(config={str(SHAPES)!r}))',
        )
        path = tmp_path / 'study.py'
        text = '\n'.join(f'{key} = {value}' for key, value in {**usual, **lines}.items() if value)
        path.write_text(text)
        return Study.fromfile(path)

    return read
