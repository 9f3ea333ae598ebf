"""What is measured: the same computation in several forms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condconv_det.analysis.interleave import Call

# Forms that compute the same from the same experts.
SAME = ('ours', 'timm', 'outputs')
# relative to the largest output
TOLERANCE = 1e-6
# Forward, the routing's gradient and the kernels' each pass over the experts once; SGD reads
# gradient, momentum and weight, and writes momentum and weight.
LAYER_PASSES = 3
NETWORK_PASSES = LAYER_PASSES + 5


def call(form: nn.Module, x: Tensor) -> object:
    return form(x)


@dataclass(frozen=True)
class Subject:
    """A layer or a network in several forms.

    Args:
        level: 'layers', 'experts', 'backbones' or 'detectors'.
        name: with the size of its input.
        forms: builds them; 'plain' is static, 'ours', 'timm' and 'outputs' compute the same.
        inputs: the arguments for a batch of so many examples, the first a tensor.
        forward: runs a form on them.
        training_step: a call that runs a form on them, and its backward.
        training_passes: how often a training step reads or writes memory of the experts' size, at
            the least; inference reads them once.
    """

    level: str
    name: str
    forms: Callable[[], dict[str, nn.Module]]
    inputs: Callable[[int], tuple]
    training_step: Callable[..., Call]
    training_passes: int
    forward: Callable[..., object] = call

    def inference(self, form: nn.Module, *inputs) -> Call:
        """A call that runs a form without gradients."""
        form.eval()

        @torch.no_grad()
        def infer() -> object:
            return self.forward(form, *inputs)

        return infer


def sgd_step(form: nn.Module, loss: Callable[[], Tensor]) -> Call:
    """A call that computes a loss, its gradients, and a step of SGD with momentum."""
    form.train()
    optimizer = torch.optim.SGD(form.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def check_same(subject: Subject, forms: Mapping[str, nn.Module], x: Tensor, *others) -> None:
    """Raises ValueError unless the forms that should compute the same do.

    In float64, because an untrained network can make much of a rounding error.

    Args:
        forms: all of the subject's.
        x, others: the arguments of a small batch; of several maps the last one is compared.
    """
    outputs = {}
    for name in SAME:
        if name in forms:
            double = forms[name].double()
            outputs[name] = _last_tensor(subject.inference(double, x.double(), *others)())
            forms[name].float()
    for name, output in outputs.items():
        limit = TOLERANCE * outputs['ours'].abs().max()
        error = (output - outputs['ours']).abs().max()
        if not error <= limit:
            raise ValueError(
                f'{subject.name}: {name} must equal ours to within {limit:.2g}, '
                f'differs by {error:.2g}'
            )


def _last_tensor(output: object) -> Tensor:
    while not isinstance(output, Tensor):
        output = output[-1]
    return output
