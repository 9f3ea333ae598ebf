"""The table of one image in PyTorch, from real calls."""

import re
import shutil

import pytest

from benchmarks import one_image
from condconv_det.ops import compiled_mixing


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(compiled_mixing, 'operator', None)


@pytest.mark.long
@pytest.mark.skipif(
    not (shutil.which('c++') and shutil.which('ninja')), reason='needs a C++ compiler and ninja'
)
def test_each_form_is_compared_with_the_static_twin(capsys):
    one_image.main(['--rounds', '1', '--threads', '1'])
    *_, header, _, row = capsys.readouterr().out.splitlines()
    assert header.split(' | ')[2:] == [*one_image.FORMS[:-1], f'{one_image.FORMS[-1]} |']
    assert re.fullmatch(
        r'\| MobileNetV1 at 300 \| 1 \| \d+\.\d \(1\.00\) (\| \d+\.\d \(\d+\.\d\d\) ){6}\|', row
    )


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(one_image, 'compile_mixing', lambda: False)
    with pytest.raises(SystemExit, match='error: the operator could not be built'):
        one_image.main([])
