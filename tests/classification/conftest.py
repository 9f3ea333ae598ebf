import pytest
from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.visualization import UniversalVisualizer


@pytest.fixture(autouse=True)
def _unformatted_configs(monkeypatch):
    """mmengine formats a run's config five times, which takes longer than these runs do."""
    monkeypatch.setattr(
        'mmengine.config.config.FormatCode', lambda text, **_: (text, True), raising=False
    )


@pytest.fixture
def forget_runs(monkeypatch):
    """Forgets earlier runs' loggers, as a new process would: two runs of a second share a name."""

    def forget():
        for kept in (MMLogger, DefaultScope, DetLocalVisualizer, UniversalVisualizer):
            monkeypatch.setattr(kept, '_instance_dict', {})

    return forget


@pytest.fixture
def run_tool(run_tool, forget_runs):
    def run(*args):
        forget_runs()
        run_tool(*args)

    return run
