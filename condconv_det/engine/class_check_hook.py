"""A check before the first image that head, config and data speak of the same classes."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from condconv_det.analysis.classes import check_classes


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Stops before training, validation or test if the class lists do not match.

    mmdet's `NumClassCheckHook` skips the test, and mmpretrain has no such check.

    Raises:
        ValueError: as `check_classes`.
    """

    def before_train(self, runner: Runner) -> None:
        check_classes(runner.model, runner.train_dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        check_classes(runner.model, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        check_classes(runner.model, runner.test_dataloader.dataset)
