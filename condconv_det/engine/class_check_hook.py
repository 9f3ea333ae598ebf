"""A check that head, config and data speak of the same classes."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Stops before training, validation or test if the class lists do not match.

    mmdet's `NumClassCheckHook` skips the test, and neither it nor mmdet's data sets notice classes
    that the annotation file does not have: they are then silently left out. mmpretrain has no such
    check, and numbers classes by their folders, in alphabetical order, whatever the config's order.

    Raises:
        ValueError: the head has another number of classes than the data set, the annotation
            file lacks some of the data set's classes, or class folders have another order.
    """

    def before_train(self, runner: Runner) -> None:
        _check(runner.model, runner.train_dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        _check(runner.model, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        _check(runner.model, runner.test_dataloader.dataset)


def _check(model: nn.Module, dataset: Dataset) -> None:
    classes = dataset.metainfo.get('classes')
    if classes is None:
        return
    for name, module in model.named_modules():
        # one-stage `bbox_head`, two-stage `roi_head.bbox_head`, cascades `roi_head.bbox_head.0`,
        # classifiers `head`
        is_head = {'bbox_head', 'head'} & {*name.split('.')} and hasattr(module, 'num_classes')
        if is_head and module.num_classes != len(classes):
            raise ValueError(
                f'{type(module).__name__} has num_classes={module.num_classes}, but the data set '
                f'names {len(classes)} classes: {", ".join(classes)}'
            )
    while hasattr(dataset, 'dataset'):  # RepeatDataset and its like
        dataset = dataset.dataset
    found = getattr(dataset, 'cat_ids', classes)
    if len(found) != len(classes):
        raise ValueError(
            f'{dataset.ann_file} has {len(found)} of the {len(classes)} classes that the config '
            f'names: {", ".join(classes)}; set metainfo=dict(classes=...) of the data set'
        )
    folders = list(getattr(dataset, 'folder_to_idx', None) or ())
    # ImageNet's folders have names of their own
    if set(folders) & set(classes) and folders != list(classes):
        raise ValueError(
            f'{dataset.img_prefix} has the class folders {", ".join(folders)}, but the config '
            f'names {", ".join(classes)}; name the classes as their folders, in alphabetical order'
        )
