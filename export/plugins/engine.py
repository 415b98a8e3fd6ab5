"""ONNX -> TensorRT engine, with the plugins of this folder.

Runs where the engine will: the same image, since a plan belongs to one version of TensorRT, and
the same kind of GPU. Knows nothing of networks; `export.to_onnx` writes the graphs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx

from export.plugins import deformable_attention

Shape = tuple[int, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Build one engine and print what it is as one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m export.plugins.engine", description=__doc__)
    parser.add_argument("model", type=Path, help="model.onnx to read")
    parser.add_argument("plan", type=Path, help="model.plan to write")
    parser.add_argument(
        "--shapes",
        type=parse_shapes,
        action="append",
        default=[],
        metavar="NAME=MIN,OPT,MAX",
        help="sizes of an input that has free ones, e.g. image=1x3x360x360,4x3x360x360,8x3x360x360",
    )
    parser.add_argument(
        "--stock-plugin",
        action="store_true",
        help="run TensorRT's own deformable attention instead of ours",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="allow TF32 products: faster, about three digits"
    )
    arguments = parser.parse_args(argv)
    plan = build_engine(
        arguments.model, dict(arguments.shapes), arguments.stock_plugin, arguments.tf32
    )
    arguments.plan.parent.mkdir(parents=True, exist_ok=True)
    arguments.plan.write_bytes(plan)
    print(json.dumps({"plan": str(arguments.plan), "bytes": len(plan)}))
    return 0


def parse_shapes(text: str) -> tuple[str, tuple[Shape, Shape, Shape]]:
    """`image=1x3,4x3,8x3` -> ("image", ((1, 3), (4, 3), (8, 3)))."""
    name, _, sizes = text.partition("=")
    try:
        smallest, usual, largest = (
            tuple(int(size) for size in shape.split("x")) for shape in sizes.split(",")
        )
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected NAME=MIN,OPT,MAX such as image=1x3,4x3,8x3, got {text}"
        ) from None
    return name, (smallest, usual, largest)


def build_engine(
    model: Path,
    shapes: dict[str, tuple[Shape, Shape, Shape]],
    stock_plugin: bool = False,
    tf32: bool = False,
) -> bytes:
    """Build an engine in the precision of the graph.

    Args:
        model: ONNX file; weights may lie beside it.
        shapes: (min, opt, max) by input name, for every input with free sizes.
        stock_plugin: Let TensorRT's own kernel compute deformable attention.
        tf32: Allow TF32 in float32 products.

    Raises:
        ValueError: if TensorRT cannot read the graph or build the engine; says what it said.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    graph = onnx.load(model, load_external_data=False)
    if stock_plugin:
        trt.init_libnvinfer_plugins(logger, "")
        choose_stock_plugin(graph)
    else:
        deformable_attention.register()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.SerializeToString(), str(model)):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ValueError(f"{model}: TensorRT cannot read it: {'; '.join(errors)}")
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in shapes.items():
        profile.set_shape(name, smallest, usual, largest)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError(f"{model}: TensorRT built no engine; its log above says why")
    return bytes(plan)


def choose_stock_plugin(graph: onnx.ModelProto) -> None:
    """Point the nodes of deformable attention at TensorRT's own plugin, version 2."""
    for node in graph.graph.node:
        if node.op_type == deformable_attention.OPERATOR:
            node.domain = ""
            del node.attribute[:]
            node.attribute.extend(
                [
                    onnx.helper.make_attribute("plugin_namespace", ""),
                    onnx.helper.make_attribute("plugin_version", "2"),
                ]
            )


if __name__ == "__main__":
    sys.exit(main())
