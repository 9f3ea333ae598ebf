"""What all tests share.

Heavy imports stand inside functions: the process that hands tests to the workers reads this, too.
"""

import gc
import json
import os
import runpy
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Two test processes share two cores; a thread pool in each would only make them wait.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Or a process that has asked whether there is a GPU could not be forked by tests of several.
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')

ROOT = Path(__file__).parents[1]

# On CI the same random examples every time: a new one is found at home, not by somebody's change.
EVERYWHERE = dict(deadline=None, derandomize=bool(os.environ.get('CI')))
settings.register_profile('short', max_examples=10, **EVERYWHERE)
settings.register_profile('long', max_examples=100, **EVERYWHERE)
settings.load_profile('short')


def pytest_collectstart() -> None:
    """Before the first test file: mmdet imports only after this package."""
    import condconv_det  # noqa: F401


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker('gpu'):
        import torch

        if not torch.cuda.is_available():
            pytest.skip('needs a GPU')


def pytest_collection_finish() -> None:
    """What was imported stays; mmengine has the garbage collector look at it for each data set."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    import numpy as np
    import torch

    torch.manual_seed(0)
    np.random.seed(0)


def _with_subclasses(cls):
    yield cls
    for subclass in cls.__subclasses__():
        yield from _with_subclasses(subclass)


@pytest.fixture(autouse=True)
def _no_traces(monkeypatch):
    """What a runner leaves in its process ends here: scope, visualizer, logger, hooks' patches."""
    from mmengine.dataset import BaseDataset
    from mmengine.utils import ManagerMixin

    for manager in _with_subclasses(ManagerMixin):
        monkeypatch.setattr(manager, '_instance_dict', manager._instance_dict.copy())
    monkeypatch.setattr(BaseDataset, 'prepare_data', BaseDataset.prepare_data)


@pytest.fixture(scope='session', autouse=True)
def _unformatted_configs():
    """mmengine formats a run's config five times, which takes longer than a test's run does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'mmengine.config.config.FormatCode', lambda text, **_: (text, True), raising=False
        )
        yield


def _settle(model, x):
    """Gives every norm random weights, and random statistics near those of what x brings it.

    Untrained, features fade to nothing on their way, and any two networks agree; with statistics
    far from their input's they explode, and rounding errors with them.
    """
    import torch
    from torch import nn

    def set_statistics(norm, inputs):
        var, mean = torch.var_mean(inputs[0], (0, 2, 3))
        norm.weight.uniform_(0.8, 1.2)
        norm.bias.normal_(std=0.1)
        norm.running_mean.copy_(mean + 0.1 * torch.randn_like(mean) * var.sqrt())
        norm.running_var.copy_(var * torch.empty_like(var).uniform_(0.8, 1.2))

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(set_statistics) for norm in norms]
    model.eval()
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return model


@pytest.fixture(scope='session')
def settle():
    return _settle


@pytest.fixture(scope='session')
def coco_root(tmp_path_factory) -> Path:
    """A folder with a miniature of COCO 2017 in data/coco: 80 classes, 4 images a split."""
    import cv2
    import numpy as np
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)

    names = CocoDataset.METAINFO['classes']
    # like COCO's own, the ids have holes
    categories = [dict(id=1 + index * 9 // 8, name=name) for index, name in enumerate(names)]
    for split in ('train2017', 'val2017'):
        folder = root / 'data' / 'coco' / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for image_id in range(1, 5):
            height, width = rng.integers(200, 400, 2).tolist()
            file_name = f'{image_id:012d}.jpg'
            cv2.imwrite(
                str(folder / file_name), rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            )
            images.append(dict(id=image_id, file_name=file_name, height=height, width=width))
            for _ in range(3):
                x, y = rng.uniform(0, 80, 2).tolist()
                box_width, box_height = rng.uniform(60, 110, 2).tolist()
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=int(rng.choice([c['id'] for c in categories])),
                        bbox=[x, y, box_width, box_height],
                        area=box_width * box_height,
                        iscrowd=0,
                    )
                )
        path = root / 'data' / 'coco' / 'annotations' / f'instances_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )
    return root


@pytest.fixture
def shapes_alone(monkeypatch):
    """Networks keep what memory held for weights: quick to build where only shapes matter."""
    from torch import Tensor

    for fill in ('normal_', 'uniform_'):
        monkeypatch.setattr(Tensor, fill, lambda tensor, *_, **__: tensor)


@pytest.fixture
def forget_runs(_no_traces):
    """Forgets earlier runs' loggers and the rest, as a new process would."""
    from mmengine.utils import ManagerMixin

    def forget() -> None:
        for manager in _with_subclasses(ManagerMixin):
            manager._instance_dict.clear()

    return forget


@pytest.fixture
def run_tool(monkeypatch, forget_runs):
    """Runs a command line of tools/ in this process: run_tool('train.py', config, '--resume')."""

    def run(tool: str, *args: object) -> None:
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        # mmdet's scripts set it; the next run must not inherit it
        monkeypatch.setenv('LOCAL_RANK', '0')
        forget_runs()
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')

    return run


# The cheapest network of each kind.
SMALL_BACKBONES = {
    'CondConvMobileNetV1': dict(widen_factor=0.25, out_indices=(3, 4)),
    'CondConvMobileNetV2': dict(widen_factor=0.25),
    'CondConvMobileNetV3': dict(arch='small', out_indices=(8, 12)),
    'CondConvMnasNet': dict(arch='a1', widen_factor=0.25),
    'CondConvEfficientNet': dict(arch='b0', out_indices=(4, 6)),
    'CondConvResNet': dict(depth=18, base_channels=16),
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name == 'CondConvMobileNetV1' else pytest.mark.long)
        for name in SMALL_BACKBONES
    ]
)
def backbone_cfg(request):
    """The config of each backbone in turn, static until it gets a `cond_cfg`."""
    return dict(SMALL_BACKBONES[request.param], type=request.param)


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Config and checkpoint of a small SSD with experts, 'routed', and of a 'static' one.

    Their weights are random, but such that scores spread from 0.5 to 1.
    """
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    from torch import nn

    channels = (64, 128, 256, 128, 64)
    small = dict(
        backbone=dict(widen_factor=0.25),
        neck=dict(in_channels=channels[:3], out_channels=channels),
        bbox_head=dict(in_channels=channels),
    )
    found = {}
    for kind, switch in (('static', ''), ('routed', '-condconv-e8')):
        folder = tmp_path_factory.mktemp(kind)
        name = f'ssd128_mobilenet-v1-0.5{switch}_1xb8-5e_shapes.py'
        cfg = Config.fromfile(ROOT / 'configs' / 'shapes' / name)
        cfg.merge_from_dict(dict(model=small))
        init_default_scope('mmdet')
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        _settle(model.backbone, torch.randn(4, 3, 128, 128))
        for predictor in model.bbox_head.cls_convs.modules():
            if isinstance(predictor, nn.Conv2d):
                nn.init.normal_(predictor.weight, std=0.05)
        config, checkpoint = folder / name, folder / 'epoch_1.pth'
        config.write_text(cfg.pretty_text)
        meta = dict(dataset_meta=dict(cfg.test_dataloader.dataset.metainfo))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
        (folder / 'last_checkpoint').write_text(str(checkpoint))
        found[kind] = config, checkpoint
    return found
