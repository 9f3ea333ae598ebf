"""A check before the first image that head, config, data and checkpoint are of the same classes."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from condconv_det.analysis.classes import check_classes, finds_words, named_classes
from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.weights.files import with_dataset_meta
from condconv_det.weights.fit import unwrapped
from condconv_det.weights.loading import file_of, left_by_loading
from condconv_det.weights.trained import raise_misfits


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Stops before training, validation or test if the class lists do not match.

    mmdet's `NumClassCheckHook` skips the test, and mmpretrain has no such check. A test or a
    validation without a training stops, too, if its checkpoint is of another network or of other
    classes: mmengine would load what fits, and measure a head at random, or a static network in the
    place of the routed one.

    Raises:
        ValueError: as `check_classes`.
        CheckpointError: the checkpoint that is measured lacks weights of the network, has some of
            other shapes, or was trained for other classes.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint

    def before_train(self, runner: Runner) -> None:
        self.loaded = {}
        check_classes(runner.model, runner.train_dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        self._check(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader.dataset)

    def _check(self, runner: Runner, dataset: Any) -> None:
        check_classes(runner.model, dataset)
        loaded, self.loaded = self.loaded, {}
        network = unwrapped(runner.model)
        if loaded:
            path = file_of(loaded)
            raise_misfits(network, left_by_loading(network), path)
            meta = with_dataset_meta(loaded.get('meta') or {}).get('dataset_meta')
        else:  # an exported file in the place of a network says it itself
            path, meta = getattr(network, 'file', None), getattr(network, 'dataset_meta', None)
        if finds_words(network):
            return
        trained = (meta or {}).get('classes') or ()
        for number, names in enumerate(zip(trained, named_classes(dataset))):
            if names[0] != names[1]:
                raise CheckpointError(
                    f'checkpoint {path} was trained for other classes than the data set has: class '
                    f'{number} is {names[0]!r} there and {names[1]!r} here; to measure it all the '
                    'same, take ClassCheckHook out of custom_hooks'
                )
