"""A training in several processes of which one fails."""

import os
import signal
import socket
import time
from functools import partial

import pytest
from processes import assert_near

pytestmark = pytest.mark.long


class Job:
    """A training in several processes, as a launcher starts them that does not watch them."""

    OPTIONS = (
        # mmengine wraps for a GPU unless told otherwise
        'model_wrapper_cfg.type=MMDistributedDataParallel',
        'model_wrapper_cfg.device_ids=None',
        'train_dataloader.batch_size=3',
        'env_cfg.dist_cfg.timeout=20',
    )

    def __init__(self, training, number):
        self.ranks = [type(training)(training.config, training.work_dir) for _ in range(number)]
        for rank, process in enumerate(self.ranks):
            process.log = training.work_dir.with_suffix(f'.{rank}.log')

    def start(self, *args):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        for rank, process in enumerate(self.ranks):
            joins = partial(set_rank, rank, len(self.ranks), port)
            process.start('--launcher', 'pytorch', *args, options=self.OPTIONS, before=joins)

    def wait(self):
        return [process.wait() for process in self.ranks]

    def wait_for(self, text):
        until = time.monotonic() + 120
        while text not in self.ranks[0].output():
            assert time.monotonic() < until, self.ranks[0].output()
            time.sleep(0.01)


def set_rank(rank, number, port):
    where = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    where |= dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=number)
    os.environ.update({key: str(value) for key, value in where.items()})


@pytest.mark.parametrize('number', [2, 4])
@pytest.mark.parametrize(
    'fate, says',
    [(signal.SIGKILL, ' by peer'), (signal.SIGSTOP, 'Timed out')],
    ids=['killed', 'stopped'],
)
def test_when_one_process_fails_the_others_end_and_the_job_resumes(
    training, tmp_path, assert_same_weights, number, fate, says
):
    whole = Job(type(training)(training.config, tmp_path / 'uninterrupted'), number)
    whole.start()
    assert whole.wait() == [0] * number, whole.ranks[0].output()

    job = Job(training, number)
    *others, victim = job.ranks
    job.start()
    try:
        job.wait_for('Saving checkpoint at 1 epochs')
        os.kill(victim._process.pid, fate)
        failed = time.monotonic()
        assert [process.wait() for process in others] == [1] * len(others)
        assert time.monotonic() - failed < 60
        assert any(says in process.output() for process in others)
    finally:
        for process in job.ranks:
            process.kill()
    assert [path.name for path in training.work_dir.glob('epoch_*')] == ['epoch_1.pth']

    job.start('--resume')
    assert job.wait() == [0] * number, others[0].output()
    assert 'resumed epoch: 1' in others[0].output()
    found, expected = training.weights(), whole.ranks[0].weights()
    if number == 2:
        assert_same_weights(found, expected)
    else:  # after a resume, more gradients than two are summed in another order
        networks = [key for key in expected if not key.startswith('optimizer')]
        assert_near(
            *({key: of[key].double() for key in networks} for of in (found, expected)), 1e-4
        )
