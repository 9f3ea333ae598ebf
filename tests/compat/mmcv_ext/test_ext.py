"""The import hook: what `mmcv._ext` is, and when it stands aside."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmcv_operators import COMPILED, ext, needs_ours, ops

from condconv_det.compat import mmcv_ext
from condconv_det.compat.mmcv_ext import MmcvExtFinder, install

ROOT = Path(__file__).parents[3]
OURS = Path(mmcv_ext.__file__).with_name('ext.py')


def test_installing_twice_adds_one_finder_at_the_end(monkeypatch):
    others = [finder for finder in sys.meta_path if not isinstance(finder, MmcvExtFinder)]
    monkeypatch.setattr(sys, 'meta_path', list(others))
    install()
    install()
    assert sys.meta_path[:-1] == others
    assert isinstance(sys.meta_path[-1], MmcvExtFinder)


def test_finder_finds_nothing_else():
    finder = MmcvExtFinder()
    assert finder.find_spec('mmcv', None) is None
    assert finder.find_spec('mmcv._ext_other', None) is None
    assert finder.find_spec('_ext', None) is None


@needs_ours
def test_module_is_ours_without_compiled_operators():
    assert Path(ext.__file__) == OURS
    assert ext.__spec__.name == ext.__name__ == 'mmcv._ext'


def test_mmcv_and_mmengine_find_the_operators():
    from mmcv.utils.ext_loader import check_ops_exist
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    assert check_ops_exist()
    assert mmcv_full_available()


@needs_ours
def test_compiled_operators_take_precedence(tmp_path):
    (tmp_path / '_ext.py').write_text(
        'def __getattr__(name):\n'
        "    if name.startswith('_'):\n"
        '        raise AttributeError(name)\n'
        "    return lambda *args, **kwargs: 'compiled ' + name\n"
    )
    script = (
        'import sys, mmcv\n'
        'mmcv.__path__.append(sys.argv[1])\n'
        'from condconv_det.compat.mmcv_ext import install\n'
        'install()\n'
        'import mmcv.ops, mmcv._ext\n'
        "print(mmcv._ext.__file__, mmcv.ops.get_compiler_version(), sep='|')\n"
    )
    result = subprocess.run(
        [sys.executable, '-c', script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found, compiler = result.stdout.strip().splitlines()[-1].split('|')
    assert Path(found) == tmp_path / '_ext.py'
    assert compiler == 'compiled get_compiler_version'


@pytest.mark.skipif(not COMPILED, reason='mmcv-lite has no operators of its own')
def test_mmcv_uses_its_own_operators_where_it_has_them():
    box = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.5]])
    assert ops.box_iou_rotated(box, box).item() == pytest.approx(1)  # which ours have not
    assert sys.modules['mmcv.ops.nms'].ext_module is ext


@needs_ours
def test_unknown_operator_looks_present():
    assert hasattr(ext, 'ms_deform_attn_forward')
    assert callable(ext.ms_deform_attn_forward)


@needs_ours
def test_unknown_operator_raises_one_clear_error_when_called():
    boxes = torch.rand(2, 5)
    with pytest.raises(NotImplementedError) as error:
        ops.box_iou_rotated(boxes, boxes)
    message = str(error.value)
    assert "'box_iou_rotated'" in message
    assert 'pip uninstall mmcv-lite' in message
    assert 'mim install mmcv==2.1.0' in message
    assert 'pip install mmcv==2.1.0' in message


@needs_ours
def test_private_names_are_not_operators():
    assert not hasattr(ext, '_private')
    assert not hasattr(ext, '__path__')


@needs_ours
def test_every_listed_operator_is_there():
    for name in ext.__all__:
        assert name in vars(ext)


@needs_ours
def test_environment_report_does_not_need_a_compiler():
    assert ops.get_compiler_version() == 'n/a'
    assert ops.get_compiling_cuda_version() == 'n/a'
