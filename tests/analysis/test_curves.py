import json

import pytest

from condconv_det.analysis.curves import plot_curves, read_scalars


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


def test_names_a_scalar_that_the_log_lacks(log):
    with pytest.raises(ValueError, match="scalars.json has no scalar 'accuracy'"):
        read_scalars(log, 'accuracy')


def test_draws_a_png(log, tmp_path):
    out = plot_curves([log, log], ['loss'], tmp_path / 'loss.png', labels=['a', 'b'])
    assert out.read_bytes().startswith(b'\x89PNG')
