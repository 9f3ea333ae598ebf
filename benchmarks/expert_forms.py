"""Other forms of the experts in an exported file, each beside the file as it is.

    python -m benchmarks.expert_forms static.onnx condconv.onnx

Of a file for one image: the experts that are mixed as int8 with a scale for each output channel of
each, widened while they are mixed; and where layers share a router (`share='block'` or 'network'),
one product that mixes all of theirs. Prints the milliseconds of each, and the ratio to the static
file.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.exported import at_least_one, compare_files
from condconv_det.deploy.runtimes import RUNTIMES, check_runtime


def with_int8_experts(model: ModelProto) -> ModelProto:
    """The same file with the experts that products mix in int8, widened before each product.

    Raises:
        ValueError: no product mixes experts.
    """
    model, mixed = _mixing_products(model)
    nodes = list(model.graph.node)
    for _, (reshape, experts) in mixed:
        name, values = experts.name, numpy_helper.to_array(experts)
        rows = values.reshape(len(values) * values.shape[1], -1)
        scales = np.maximum(np.abs(rows).max(1), np.finfo(np.float32).tiny) / 127
        model.graph.initializer.remove(experts)
        _add(model, name, np.round(rows / scales[:, None]).astype(np.int8))
        _add(model, f'{name}/scales', scales)
        widened = helper.make_node(
            'DequantizeLinear', [name, f'{name}/scales'], [f'{name}/widened'], axis=0
        )
        nodes.insert(nodes.index(reshape), widened)
        reshape.input[0] = widened.output[0]
    return _with_nodes(model, nodes)


def with_one_product_a_router(model: ModelProto) -> ModelProto:
    """The same file in which one product mixes the experts of all layers that share a router.

    Raises:
        ValueError: no product mixes experts, or no two layers share a router.
    """
    model, mixed = _mixing_products(model)
    nodes = list(model.graph.node)
    by_router: dict[str, list] = {}
    for product, source in mixed:
        by_router.setdefault(product.input[0], []).append((product, *source))
    if len(by_router) == len(mixed):
        raise ValueError(f'{len(mixed)} layers mix experts, and no two share a router')
    for router, group in by_router.items():
        rows = [numpy_helper.to_array(experts) for _, _, experts in group]
        rows = [experts.reshape(len(experts), -1) for experts in rows]
        together, sizes, row = f'{router}/experts', f'{router}/sizes', f'{router}/row'
        _add(model, together, np.concatenate(rows, 1))
        _add(model, sizes, np.array([experts.shape[1] for experts in rows]))
        place = nodes.index(group[0][0])
        outputs = [product.output[0] for product, _, _ in group]
        nodes[place:place] = [
            helper.make_node('MatMul', [router, together], [row]),
            helper.make_node('Split', [row, sizes], outputs, axis=1),
        ]
        for product, reshape, _ in group:
            nodes.remove(product)
            nodes.remove(reshape)
    return _with_nodes(model, nodes)


FORMS = {
    'int8 experts with scales': with_int8_experts,
    'one product a router': with_one_product_a_router,
}


def _mixing_products(
    model: ModelProto,
) -> tuple[ModelProto, list[tuple[NodeProto, tuple[NodeProto, TensorProto]]]]:
    """A copy, and of it each product of routing weights and experts, with what flattens these."""
    copied = ModelProto()
    copied.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copied.graph.initializer}
    flattened = {
        node.output[0]: (node, constants[node.input[0]])
        for node in copied.graph.node
        if node.op_type == 'Reshape' and node.input[0] in constants
    }
    mixed = [
        (node, flattened[node.input[1]])
        for node in copied.graph.node
        if node.op_type == 'MatMul' and node.input[1] in flattened
    ]
    if not mixed:
        raise ValueError('no product mixes experts: take a file of CondConv for one image')
    return copied, mixed


def _add(model: ModelProto, name: str, value: np.ndarray) -> None:
    model.graph.initializer.append(numpy_helper.from_array(value, name))


def _with_nodes(model: ModelProto, nodes: Sequence[NodeProto]) -> ModelProto:
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    del model.graph.value_info[:]  # may be of what is gone
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    return model


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('static', type=Path, help='of tools/export.py, for one image')
    parser.add_argument('condconv', type=Path, help='the same of a detector with experts')
    parser.add_argument('--threads', nargs='+', type=at_least_one, default=[1, 2])
    parser.add_argument('--runtimes', nargs='+', choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument('--rounds', type=at_least_one, default=30, help='(%(default)s)')
    args = parser.parse_args(argv)
    try:
        for runtime in args.runtimes:
            check_runtime(runtime)
        model = onnx.load(args.condconv)
        with TemporaryDirectory() as folder:
            files = {'static': args.static, 'CondConv': args.condconv}
            for form, rewrite in FORMS.items():
                try:
                    rewritten = rewrite(model)
                except ValueError as error:
                    print(f'{form}: left out, {error}')
                    continue
                files[form] = Path(folder) / f'{form}.onnx'
                onnx.save(rewritten, files[form])
            compare_files(files, args.threads, args.runtimes, args.rounds)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
