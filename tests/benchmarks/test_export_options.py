from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import save_checkpoint

from condconv_det.data.shapes import make_shapes

options = pytest.importorskip(
    'benchmarks.export_options', exc_type=ImportError
)  # needs onnxruntime
CONFIG = (
    Path(__file__).parents[2]
    / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
)


@pytest.mark.long
def test_each_file_has_its_size_and_times(tmp_path, capsys):
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.init_weights()
    save_checkpoint(dict(state_dict=model.state_dict()), str(tmp_path / 'model.pth'))
    make_shapes(tmp_path / 'shapes', dict(val=8), size=128)
    images = sorted(map(str, (tmp_path / 'shapes/val').iterdir()))
    files = ['--out', str(tmp_path / 'files'), '--rounds', '1']
    options.main([str(CONFIG), str(tmp_path / 'model.pth'), *images, *files])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    rows = {name: values for name, *values in filter(None, rows) if name[:1].isalpha()}
    sizes = {name: float(megabytes) for name, (megabytes, *_) in rows.items() if megabytes}
    assert set(rows) - set(sizes) == {'PyTorch', 'PyTorch with NMS'}
    assert {f'{name}.onnx' for name in sizes} == {p.name for p in (tmp_path / 'files').iterdir()}
    assert sizes['int8-mixing'] < 0.4 * sizes['batch-1']
    assert sizes['half-experts'] < 0.6 * sizes['batch-1']
    assert all(float(time) > 0 for _, *times in rows.values() for time in times)
