import json

import numpy as np
import pytest
from matplotlib.axes import Axes

from condconv_det.analysis.curves import plot_curves, read_scalars, training_seconds


@pytest.fixture
def log(tmp_path):
    path = tmp_path / 'scalars.json'
    records = [dict(loss=2.0, step=1), {'coco/bbox_mAP': 0.1, 'step': 1}, dict(loss=1.0, step=2)]
    path.write_text('\n'.join(json.dumps(record) for record in records))
    return path


def test_reads_one_scalar_in_order(log):
    assert read_scalars(log, 'loss') == ([1, 2], [2.0, 1.0])


def test_reads_a_work_dir_as_one_training_with_interruptions(tmp_path):
    # the first run came to step 3, and the second went on from a checkpoint at step 1
    for run, losses in (('20260101_000000', {1: 4, 2: 3, 3: 2}), ('20260102_000000', {2: 5, 3: 1})):
        path = tmp_path / 'work_dir' / run / 'vis_data' / 'scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(json.dumps(dict(loss=v, step=k)) for k, v in losses.items()))
    assert read_scalars(tmp_path / 'work_dir', 'loss') == ([1, 2, 3], [4, 5, 1])


def test_a_line_that_was_cut_off_is_passed_over(log):
    log.write_text(log.read_text() + '\n{"loss": 0.5, "st')
    assert read_scalars(log, 'loss') == ([1, 2], [2.0, 1.0])


def test_names_a_scalar_that_the_log_lacks(log):
    with pytest.raises(ValueError, match="scalars.json has no scalar 'accuracy'"):
        read_scalars(log, 'accuracy')


def test_a_validation_that_detected_nothing_has_an_mAP_of_0(tmp_path):
    times = dict(data_time=0.1, time=0.2)
    records = [
        dict(times, step=1, lr=0.1, loss=2.0),
        dict(times, step=1),
        {**times, 'step': 2, 'coco/bbox_mAP': 0.3},
        dict(times, step=3),
    ]
    (tmp_path / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    found = read_scalars(tmp_path / 'scalars.json', 'coco/bbox_mAP')
    assert found == ([1, 2, 3], [0, 0.3, 0])
    with pytest.raises(ValueError, match="has no scalar 'accuracy'"):
        read_scalars(tmp_path / 'scalars.json', 'accuracy')


def test_draws_a_png(log, tmp_path):
    out = plot_curves([log, log], ['loss'], tmp_path / 'loss.png', labels=['a', 'b'])
    assert out.read_bytes().startswith(b'\x89PNG')


def test_training_time_counts_steps_not_validations(tmp_path):
    path = tmp_path / 'work_dir' / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    records = [
        dict(step=10, time=0.5, lr=0.1, loss=2.0),
        dict(step=1, time=9.0),  # validation, which counts epochs
        dict(step=30, time=0.2, lr=0.1, loss=1.0),
    ]
    path.write_text('\n'.join(map(json.dumps, records)))
    assert training_seconds(tmp_path / 'work_dir') == pytest.approx(10 * 0.5 + 20 * 0.2)


@pytest.mark.parametrize('epochs', [1, 2, 3])
def test_training_time_has_the_steps_after_the_last_logged_ones(tmp_path, epochs):
    path = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    # epochs of 125 steps, logged every 50
    records = [
        dict(epoch=1 + epoch, step=125 * epoch + inner, time=0.1 + epoch, lr=0.1)
        for epoch in range(epochs)
        for inner in (50, 100)
    ]
    path.write_text('\n'.join(map(json.dumps, records)))
    logged = sum((125 if epoch else 100) * (0.1 + epoch) for epoch in range(epochs))
    tail = 25 * (epochs - 0.9)
    of_epochs = logged + tail if epochs > 1 else logged  # one does not tell how long it is
    assert training_seconds(tmp_path) == pytest.approx(of_epochs)
    assert training_seconds(tmp_path, iterations=125 * epochs) == pytest.approx(logged + tail)


def test_several_logs_are_drawn_as_their_mean_and_range(tmp_path, monkeypatch):
    logs = []
    for number, losses in enumerate(([4, 2, 1], [2, 4])):
        logs.append(tmp_path / f'{number}.json')
        records = [dict(step=step, loss=loss) for step, loss in enumerate(losses)]
        logs[-1].write_text('\n'.join(map(json.dumps, records)))
    lines, bands = [], []
    monkeypatch.setattr(Axes, 'plot', spy(Axes.plot, lines))
    monkeypatch.setattr(Axes, 'fill_between', spy(Axes.fill_between, bands))
    plot_curves([logs, logs[0]], ['loss'], tmp_path / 'loss.png', ['both', 'one'])
    assert lines == [([0, 1], [3, 3]), ([0, 1, 2], [4, 2, 1])]  # the steps that both have
    assert bands == [([0, 1], [2, 2], [4, 4])]


def test_twenty_curves_differ_by_colour_or_dash(log, tmp_path, monkeypatch):
    looks = []

    def draw(axes, *values, **options):
        lines = plot(axes, *values, **options)
        looks.append((lines[0].get_color(), lines[0].get_linestyle()))
        return lines

    plot = Axes.plot
    monkeypatch.setattr(Axes, 'plot', draw)
    labels = [f'arm {number}' for number in range(20)]
    plot_curves([log] * 20, ['loss'], tmp_path / 'loss.png', labels)
    assert len(set(looks)) == 20


def spy(draw, calls):
    def drawn(axes, *values, **options):
        calls.append(tuple(np.asarray(value).tolist() for value in values))
        return draw(axes, *values, **options)

    return drawn
