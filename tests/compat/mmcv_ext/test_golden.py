"""mmcv's own compiled CPU operators as the reference, through mmcv.ops' public functions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv_operators import ops
from torch import Tensor

GOLDEN = np.load(Path(__file__).parents[2] / 'golden' / 'mmcv_ops_2.1.0_cpu.npz')
CASES = list(dict.fromkeys(key.split('/')[0] for key in GOLDEN.files))


def arrays(case: str, kind: str) -> dict[str, np.ndarray]:
    prefix = f'{case}/{kind}/'
    return {key.removeprefix(prefix): GOLDEN[key] for key in GOLDEN.files if key.startswith(prefix)}


def run_nms(function, inputs: dict[str, Tensor], args: dict) -> dict[str, Tensor]:
    dets, keep = function(**inputs, **args)
    return {'dets': dets, 'keep': keep}


def run_batched_nms(inputs: dict[str, Tensor], args: dict) -> dict[str, Tensor]:
    class_agnostic = args.pop('class_agnostic')
    return run_nms(ops.batched_nms, inputs, {'nms_cfg': args, 'class_agnostic': class_agnostic})


def run_nms_match(inputs: dict[str, Tensor], args: dict) -> dict[str, Tensor]:
    groups = ops.nms_match(**inputs, **args)
    return {
        'group_sizes': torch.tensor([len(group) for group in groups]),
        'members': torch.cat(groups),
    }


def run_with_gradients(function, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    grad_output = inputs.pop('grad_output')
    leaves = {n: t.requires_grad_() for n, t in inputs.items() if n not in ('rois', 'bias')}
    output = function(**inputs)
    output.backward(grad_output)
    return {'output': output.detach(), **{f'grad_{n}': t.grad for n, t in leaves.items()}}


def run(case: str, device: str) -> dict[str, Tensor]:
    inputs = {n: torch.from_numpy(a).to(device) for n, a in arrays(case, 'in').items()}
    args = {n: a.tolist() for n, a in arrays(case, 'arg').items()}
    if case.startswith('nms_match'):
        return run_nms_match(inputs, args)
    if case.startswith('nms'):
        return run_nms(ops.nms, inputs, args)
    if case.startswith('soft_nms'):
        return run_nms(ops.soft_nms, inputs, args)
    if case.startswith('batched_nms'):
        return run_batched_nms(inputs, args)
    if case.startswith('roi_align'):
        return run_with_gradients(ops.RoIAlign(**args), inputs)
    function = getattr(ops, case.rpartition('_')[0])
    # These take arguments by position only, in the order in which the file holds them.
    order = ('stride', 'padding', 'dilation', 'groups', 'deform_groups')
    return run_with_gradients(
        lambda **tensors: function(*tensors.values(), *(args[name] for name in order)), inputs
    )


def compared(case: str, device: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    found, expected = run(case, device), arrays(case, 'out')
    assert expected.keys() <= found.keys()
    for name, array in expected.items():
        yield name, found[name].cpu().numpy(), array


def test_file_has_all_cases():
    assert len(CASES) == 32


@pytest.mark.parametrize('case', CASES)
def test_agrees_with_compiled_mmcv(case: str):
    for name, found, expected in compared(case, 'cpu'):
        assert found.dtype == expected.dtype
        if name in ('keep', 'group_sizes', 'members'):
            np.testing.assert_array_equal(found, expected, err_msg=name)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.gpu
def test_cuda_agrees_with_compiled_mmcv():
    for case in CASES:
        for name, found, expected in compared(case, 'cuda'):
            message = f'{case} {name}'
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3, err_msg=message)
