import json
import re
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from condconv_det.deploy.write import METADATA, check_environment

exported = pytest.importorskip('benchmarks.exported', exc_type=ImportError)  # needs onnxruntime
try:
    check_environment('onnx')
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture
def files(tmp_path):
    """One small file of each kind, in the place of a network's; and one that is none."""
    images, outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8])
        for name in ('images', 'boxes')
    )
    graph = helper.make_graph(
        [helper.make_node('Relu', ['images'], ['boxes'])], 'g', [images], [outputs]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 10
    helper.set_model_props(model, {METADATA: json.dumps(dict(size=[8, 8]))})
    files = {name: tmp_path / f'{index}.onnx' for index, name in enumerate(exported.FILES)}
    for file in files.values():
        onnx.save(model, file)
    files[exported.INT8].write_text('no model')
    return files


def small(monkeypatch, files):
    """Networks whose files are written at once; the names of those that were."""
    written = []
    monkeypatch.setattr(
        exported, 'write_files', lambda config, folder: written.append(config) or files
    )
    return written


def run(tmp_path, *args):
    exported.main(['--out', str(tmp_path / 'out'), '--runtimes', 'onnx', '--rounds', '2', *args])
    return json.loads((tmp_path / 'out/results.json').read_text())


def test_each_file_has_its_times_or_the_reason_why_not(files, tmp_path, monkeypatch, capsys):
    small(monkeypatch, files)
    results = run(tmp_path, '--networks', 'SSD128-0.5', '--threads', '1', '2')
    assert [(row['threads'], row['file']) for row in results['rows']] == [
        (threads, name) for threads in (1, 2) for name in exported.FILES
    ]
    for row in results['rows']:
        if row['file'] == exported.INT8:
            assert 'not an ONNX file' in row['error'] and 'seconds' not in row
        else:
            assert len(row['seconds']) == 2 and min(row['seconds']) > 0
    out = capsys.readouterr().out
    assert f'SSD128-0.5, 2, onnx, {exported.FROZEN}' in out
    assert out.rstrip().endswith((tmp_path / 'out/table.md').read_text().rstrip())


def test_files_of_ones_own_are_compared_with_the_first(files, tmp_path, capsys):
    named = [str(files[name]) for name in (exported.STATIC, exported.ROUTED, exported.INT8)]
    options = ['--runtimes', 'onnx', '--rounds', '2', '--threads', '1']
    exported.main(['--files', *named, *options])
    first, second, broken = capsys.readouterr().out.splitlines()[2:]
    assert first.startswith(f'| {named[0]} | 0.0 | 1 | ONNX Runtime | ') and '(' not in first
    assert re.fullmatch(r'.*/4.onnx .* ONNX Runtime \| \d+\.\d \(\d+\.\d\d\) \|', second)
    assert broken.endswith('| not taken |')
    with pytest.raises(SystemExit, match='error: .*nowhere.onnx does not exist'):
        exported.main(['--files', str(tmp_path / 'nowhere.onnx'), *options])


def test_tables_have_sizes_medians_and_ratios_to_the_static_twin_round_by_round():
    seconds = {
        exported.STATIC: [0.010, 0.020, 0.030],
        exported.FROZEN: [0.010, 0.020, 0.030],
        exported.ROUTED: [0.020, 0.040, 0.045],  # twice, twice, 1.5 times
    }
    row = dict(network='SSD', threads=1, runtime='onnx', megabytes=1.0)
    rows = [dict(row, file=name, seconds=times) for name, times in seconds.items()]
    rows.append(dict(row, file=exported.HALF, error='it is too new'))
    times, sizes = exported.table(rows).split('\n\n')
    assert times.splitlines()[2] == (
        '| SSD | 1 | ONNX Runtime | 20.0 | 20.0 (1.00) |  |  | 40.0 (2.00) |  | not taken |  |'
    )
    assert sizes.splitlines()[2:] == ['| SSD | 1.0 | 1.0 |  |  | 1.0 |  | 1.0 |  |']


def test_a_run_that_was_cut_off_keeps_what_it_measured_and_goes_on(
    files, tmp_path, monkeypatch, capsys
):
    written = small(monkeypatch, files)
    measure = exported.measure

    def cut_off(network, files, threads, *args):
        if threads == 2:
            raise KeyboardInterrupt
        return measure(network, files, threads, *args)

    monkeypatch.setattr(exported, 'measure', cut_off)
    with pytest.raises(SystemExit, match='cut off; what was measured is in .*out, and the same'):
        run(tmp_path, '--networks', 'SSD128-0.5')
    assert '| SSD128-0.5 | 1 | ONNX Runtime |' in capsys.readouterr().out
    before = json.loads((tmp_path / 'out/results.json').read_text())['rows']
    assert {row['threads'] for row in before} == {1}

    monkeypatch.setattr(exported, 'measure', measure)
    after = run(tmp_path, '--networks', 'SSD128-0.5')['rows']
    assert after[: len(before)] == before and {row['threads'] for row in after} == {1, 2}
    run(tmp_path, '--networks', 'SSD128-0.5')
    assert len(written) == 2  # nothing is written where nothing is missing


@pytest.mark.parametrize(
    'content, says',
    [
        ('{', 'is not a file of this benchmark: JSONDecodeError'),
        ('[]', 'is not a file of this benchmark: TypeError'),
        ('{"machine": {}, "rows": [{"network": "SSD"}]}', 'its rows lack some of'),
        ('{"machine": {"torch": "1.0"}, "rows": []}', 'must be of this machine, .*name another'),
    ],
)
def test_other_results_are_named(tmp_path, content, says):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/results.json').write_text(content)
    with pytest.raises(SystemExit, match=f'error: .*results.json {says}|error: .*{says}'):
        run(tmp_path)


def test_a_missing_openvino_is_named_before_anything_is_written(tmp_path, monkeypatch):
    written = small(monkeypatch, {})
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(SystemExit, match=r"error: .*openvino >= .*pip install -e '.\[openvino\]'"):
        exported.main(['--out', str(tmp_path / 'out')])
    assert not written and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('option', [['--threads', '0'], ['--rounds', 'x'], ['--networks', 'YOLO']])
def test_bad_options_are_named(tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, *option)
    assert option[1] in capsys.readouterr().err


@pytest.mark.long
def test_a_networks_frozen_file_is_as_large_as_its_static_twins(tmp_path):
    files = exported.write_files(exported.NETWORKS['SSD128-0.5'], tmp_path)
    size = {name: file.stat().st_size for name, file in files.items()}
    assert size[exported.FROZEN] == pytest.approx(size[exported.STATIC], rel=0.01)
    assert size[exported.ROUTED] > 4 * size[exported.STATIC]
    assert size[exported.ROUTED_CPU] == pytest.approx(size[exported.ROUTED], rel=0.15)
    assert size[exported.HALF] < 0.6 * size[exported.ROUTED]
    # small layers run all experts, which stay as they are
    assert size[exported.INT8] < 0.9 * size[exported.ROUTED]
    operators = {
        name: sorted(node.op_type for node in onnx.load(files[name]).graph.node)
        for name in (exported.STATIC, exported.FROZEN)
    }
    assert operators[exported.FROZEN] == operators[exported.STATIC]
