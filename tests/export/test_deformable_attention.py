import io
import warnings

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from transformers.models.deformable_detr.modeling_deformable_detr import (
    MultiScaleDeformableAttention,
)

from export.deformable_attention import by_gather, deformable_attention_as
from training.networks.deformable_attention import by_definition, deformable_attention

SHAPES = [(9, 12), (5, 6), (2, 3)]
TOKENS = 9 * 12 + 5 * 6 + 2 * 3


class Attention(nn.Module):
    def forward(self, value, locations, weights):
        return deformable_attention(value, SHAPES, locations, weights)


def example(items, queries, heads=3, channels=4, points=2):
    """Value, locations up to 0.3 outside the maps, weights."""
    torch.manual_seed(items * queries)
    value = torch.randn(items, TOKENS, heads, channels)
    layout = (items, queries, heads, len(SHAPES), points)
    weights = torch.rand(layout).flatten(3).softmax(-1).view(layout)
    return value, torch.rand(*layout, 2) * 1.6 - 0.3, weights


def graph(implementation, queries):
    """The graph that is written for an example of two items, N and Q free."""
    file, names = io.BytesIO(), ["value", "locations", "weights"]
    free = {name: {0: "n", 1: "q"} if name != "value" else {0: "n"} for name in (*names, "output")}
    with deformable_attention_as(implementation), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Attention(),
            example(2, queries),
            file,
            input_names=names,
            output_names=["output"],
            dynamic_axes=free,
            opset_version=18,
            dynamo=False,
        )
    model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model)
    return model


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


@pytest.mark.parametrize(("traced", "operator"), [(1, "Gather"), (TOKENS, "GridSample")])
def test_onnx_runtime_computes_the_definition_for_every_number_of_items_and_queries(
    traced, operator
):
    model = graph("onnx", traced)
    sampled = [node for node in model.graph.node if node.op_type == "GridSample"]
    assert bool(sampled) == (operator == "GridSample")
    assert all(attributes(node)["mode"] == b"bilinear" for node in sampled)
    assert model.opset_import[0].version == 18
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for items, queries in ((1, 1), (1, 5), (3, TOKENS)):
        value, locations, weights = example(items, queries)
        feed = {"value": value, "locations": locations, "weights": weights}
        (output,) = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
        found = torch.from_numpy(output)
        expected = by_definition(value, SHAPES, locations, weights)
        hugging_face = MultiScaleDeformableAttention()(
            value, torch.tensor(SHAPES), SHAPES, None, locations, weights, 64
        )
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found, hugging_face, rtol=1e-5, atol=1e-5)


def test_gathering_takes_locations_far_outside_and_on_the_edge():
    value, locations, weights = (tensor.double() for tensor in example(2, 4))
    locations[0, 0], locations[0, 1], locations[0, 2] = 1e6, 0, 1
    expected = by_definition(value, SHAPES, locations, weights)
    torch.testing.assert_close(by_gather(value, SHAPES, locations, weights), expected)
    assert expected[0, 0].abs().max() == 0


def test_tensorrt_gets_one_node_of_float32_coordinates_and_constant_shapes():
    model = graph("tensorrt", 5)
    (node,) = (node for node in model.graph.node if node.domain == "trt.plugins")
    assert node.op_type == "MultiscaleDeformableAttnPlugin_TRT"
    assert attributes(node) == {
        "plugin_namespace": b"saymask",
        "plugin_version": b"1",
        "aot": 1,
    }
    constants = {
        n.output[0]: onnx.numpy_helper.to_array(attributes(n)["value"])
        for n in model.graph.node
        if n.op_type == "Constant"
    } | {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    shapes, starts = constants[node.input[1]], constants[node.input[2]]
    assert shapes.dtype == starts.dtype == "int32"
    assert shapes.tolist() == [list(shape) for shape in SHAPES]
    assert starts.tolist() == [0, 108, 138]
    casts = {n.output[0]: n for n in model.graph.node if n.op_type == "Cast"}
    assert node.input[0] == "value"
    for tensor, name in zip(node.input[3:], ("locations", "weights"), strict=True):
        assert list(casts[tensor].input) == [name]
        assert attributes(casts[tensor])["to"] == onnx.TensorProto.FLOAT
    (output,) = model.graph.output
    assert [axis.dim_param for axis in output.type.tensor_type.shape.dim][:2] == ["n", "q"]


def test_the_node_computes_the_definition_in_torch():
    value, locations, weights = example(2, 5)
    with deformable_attention_as("tensorrt"):
        found = deformable_attention(value, SHAPES, locations, weights)
    torch.testing.assert_close(found, by_definition(value, SHAPES, locations, weights))


def test_what_cannot_be_exported_is_refused():
    with (
        pytest.raises(ValueError, match=r"'torch', 'onnx', 'tensorrt'\], got cuda"),
        deformable_attention_as("cuda"),
    ):
        pass
    value, locations, weights = example(1, 1, channels=6)
    with (
        deformable_attention_as("tensorrt"),
        pytest.raises(ValueError, match="multiple of 4, got 6"),
    ):
        deformable_attention(value, SHAPES, locations, weights)
