"""The blocks of docs/layer.md, each run after the first as it stands there."""

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[1] / 'docs' / 'layer.md').read_text()
FIRST, *BLOCKS = re.findall(r'```python\n(.+?)```', PAGE, flags=re.DOTALL)
# what takes long or needs a newer PyTorch, by a word of the block
LONG = ('torch.compile', 'torch.onnx')
NEEDS = {'torch.compile(': 'is_compiling', 'torch.export.': 'is_exporting'}


def marks(block):
    words = [word for word in NEEDS if word in block]
    lacking = [name for name in map(NEEDS.get, words) if not hasattr(torch.compiler, name)]
    yield pytest.mark.skipif(bool(lacking), reason=f'{torch.__version__} has no {lacking}')
    if any(word in block for word in LONG):
        yield pytest.mark.long


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'block',
    [pytest.param(b, marks=[*marks(b)], id=re.sub(r'\W+', '_', b[:40])) for b in ['', *BLOCKS]],
)
def test_a_block_runs(block, tmp_path, monkeypatch):
    if 'torch.onnx' in block:
        pytest.importorskip('onnxscript')
    monkeypatch.chdir(tmp_path)
    names = {'__name__': 'page'}
    exec(FIRST, names)
    exec(block, names)
