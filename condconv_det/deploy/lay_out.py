"""Kernels that are mixed in the layout in which ONNX Runtime convolves on this machine's CPU.

The runtime lays out constant kernels when it opens a file, in blocks of as many channels as the
CPU's vectors hold, and keeps feature maps in such blocks from one convolution to the next. A kernel
that is mixed for each image it takes as it is, convolves more slowly with it, and lays maps out
before and after. But a mix of laid-out experts is laid out, too. So the runtime is asked what
becomes of each expert, and those are mixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy import ndarray
from onnx_ir.passes.common import RemoveUnusedNodesPass

LEVELS = onnxruntime.GraphOptimizationLevel
# Numbers of a kernel in one product: a stack of products mixes in half the time of a single one,
# whose constant matrix the runtime lays out for products with many rows.
BLOCK = 2**13
MARK = 2**20  # no weight is as large; it and the next numbers are exact in float32
# They scale constant kernels, and marks with them, by a norm or a factor that follows.
SCALING = ('ConvBNFusion', 'ConvMulFusion')


@dataclass(frozen=True)
class MixedKernel:
    """The kernel of one convolution.

    Args:
        routing: name of its routing weights, [1, E].
        experts: [E, Cout, Cin/groups, kh, kw].
        constant: what the convolution has in its place.
    """

    routing: str
    experts: ndarray
    constant: ir.Value


def lay_out_kernels(model: ir.Model) -> ir.Model | None:
    """A network of one image that mixes its kernels as ONNX Runtime lays them out on this CPU.

    The result is for ONNX Runtime alone, and for CPUs with the same `channels_per_block`; None if
    the network mixes no kernel, as where all experts run on small maps.

    Args:
        model: its kernels are constant, or products of routing weights and experts.

    Raises:
        ValueError: the runtime lays out no kernel on this CPU.
    """
    if channels_per_block() == 1:
        raise ValueError('ONNX Runtime lays out no kernels on this CPU: leave them as they are')
    model = _optimised(model, LEVELS.ORT_ENABLE_BASIC)  # which makes constants of the experts
    outputs = len(model.graph.outputs)
    mixed = _take_out_mixing(model)
    if not mixed:
        return None

    marks = [np.full_like(kernel.experts[0], MARK + i) for i, kernel in enumerate(mixed)]
    network = _with_constants(model, mixed, marks)
    places = _places(network, marks)
    most = max(len(kernel.experts) for kernel in mixed)
    laid_out = []
    for expert in range(most):
        each = [kernel.experts[min(expert, len(kernel.experts) - 1)] for kernel in mixed]
        nodes = list(_with_constants(model, mixed, each).graph)
        laid_out.append([nodes[place].inputs[1].const_value.numpy() for place in places])

    nodes = list(network.graph)
    routing = {value.name: value for value in network.graph.outputs}
    for place, kernel, *experts in zip(places, mixed, *laid_out):
        experts = np.stack(experts[: len(kernel.experts)])
        _mix(nodes[place], routing[kernel.routing], experts)
    del network.graph.outputs[outputs:]
    network.graph.sort()
    return network


def channels_per_block() -> int:
    """Of kernels as ONNX Runtime lays them out on this CPU; 1 if it leaves them as they are."""
    side = 64
    numbers = np.arange(side**2, dtype=np.float32).reshape(side, side, 1, 1)
    x, y = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((1, side, 8, 8)))
        for name in 'xy'
    )
    kernel = ir.Value(name='kernel', const_value=ir.tensor(numbers))
    conv = ir.node('Conv', [x, kernel], outputs=[y])
    graph = ir.Graph([x], [y], nodes=[conv], initializers=[kernel], opset_imports={'': 18})
    network = _optimised(ir.Model(graph, ir_version=10), LEVELS.ORT_ENABLE_ALL)
    (kernel,) = (node.inputs[1] for node in network.graph if node.op_type == 'Conv')
    steps = np.diff(kernel.const_value.numpy().flatten())
    return int((steps == side).argmin()) + 1  # where the next channel does not follow any more


def _optimised(model: ir.Model, level: LEVELS, disabled: Sequence[str] = ()) -> ir.Model:
    """What ONNX Runtime makes of a model on this CPU, without the optimisers that are disabled."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3  # that the result is for one kind of CPU is meant
    with TemporaryDirectory() as folder:
        options.optimized_model_filepath = f'{folder}/optimised.onnx'
        written = ir.to_proto(model).SerializeToString()
        onnxruntime.InferenceSession(
            written, options, providers=['CPUExecutionProvider'], disabled_optimizers=disabled
        )
        return ir.from_proto(onnx.load(options.optimized_model_filepath))


def _take_out_mixing(model: ir.Model) -> list[MixedKernel]:
    """Makes constants of all kernels that are mixed, and outputs of their routing weights."""
    mixed = []
    for node in model.graph:
        if node.op_type != 'Conv' or node.inputs[1].const_value is not None:
            continue
        reshape = node.inputs[1].producer()
        routing, rows = reshape.inputs[0].producer().inputs
        shape = reshape.inputs[1].const_value.numpy()
        experts = rows.const_value.numpy().reshape(-1, *shape)
        constant = ir.Value(name=f'kernel_{len(mixed)}')
        mixed.append(MixedKernel(routing.name, experts, constant))
        node.replace_input_with(1, constant)
        if routing not in model.graph.outputs:
            model.graph.outputs.append(routing)
    return mixed


def _with_constants(
    model: ir.Model, mixed: Sequence[MixedKernel], kernels: Sequence[ndarray]
) -> ir.Model:
    """What ONNX Runtime makes of a model with these kernels in the place of those mixed."""
    for each, kernel in zip(mixed, kernels):
        each.constant.const_value = ir.tensor(kernel)
        model.graph.initializers[each.constant.name] = each.constant
    RemoveUnusedNodesPass()(model)
    return _optimised(model, LEVELS.ORT_ENABLE_ALL, SCALING)


def _places(network: ir.Model, marks: Sequence[ndarray]) -> list[int]:
    """Where among a network's nodes the convolution with each mark is."""
    found = {}
    for place, node in enumerate(network.graph):
        if node.op_type in ('Conv', 'FusedConv'):
            found[node.inputs[1].const_value.numpy().max()] = place
    return [found[mark.flat[0]] for mark in marks]


def _mix(conv: ir.Node, routing: ir.Value, experts: ndarray) -> None:
    """Gives a convolution a mix of experts, [E, ...], for its kernel."""
    count, *shape = experts.shape
    size = block_size(experts[0].size)
    blocks = experts.reshape(count, -1, size).swapaxes(0, 1)  # [N, E, size]
    name = conv.inputs[1].name
    constants = [
        ir.Value(name=f'{name}_{of}', const_value=ir.tensor(np.ascontiguousarray(values)))
        for of, values in (('experts', blocks), ('shape', np.array(shape)))
    ]
    for value in constants:
        conv.graph.register_initializer(value)
    product = ir.node('MatMul', [routing, constants[0]])
    reshape = ir.node('Reshape', [product.outputs[0], constants[1]])
    conv.graph.insert_before(conv, [product, reshape])
    del conv.graph.initializers[name]
    conv.replace_input_with(1, reshape.outputs[0])


def block_size(size: int) -> int:
    """The largest part of `size` numbers, at most `BLOCK`, or all where none is nearly as large."""
    least = -(-size // BLOCK)
    return next((size // parts for parts in range(least, 4 * least) if size % parts == 0), size)
