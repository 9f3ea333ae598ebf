from types import SimpleNamespace

import pytest
from torch import nn

from condconv_det.engine import ClassCheckHook


@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
def test_before_each_stage_its_own_data_are_checked(stage):
    model = nn.Module()
    model.bbox_head = nn.Module()
    model.bbox_head.num_classes = 2
    runner = SimpleNamespace(model=model)
    for name in ('train', 'val', 'test'):
        classes = ('cat', 'dog', 'cow') if name == stage else ('cat', 'dog')
        dataset = SimpleNamespace(metainfo=dict(classes=classes))
        setattr(runner, f'{name}_dataloader', SimpleNamespace(dataset=dataset))
    hook = ClassCheckHook()
    for name in {'train', 'val', 'test'} - {stage}:
        getattr(hook, f'before_{name}')(runner)
    with pytest.raises(ValueError, match='num_classes=2, .* 3 classes: cat, dog, cow'):
        getattr(hook, f'before_{stage}')(runner)
