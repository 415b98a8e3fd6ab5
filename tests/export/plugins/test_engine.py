import argparse

import onnx
import pytest

from export.plugins.engine import choose_stock_plugin, parse_shapes


def test_shapes_are_read_as_three_sizes_of_one_input():
    assert parse_shapes("image=1x3x8x8,4x3x8x8,8x3x9x9") == (
        "image",
        ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 9, 9)),
    )


@pytest.mark.parametrize("text", ["image", "image=1x3", "image=1x3,2x3,ax3", "image=1,2,3,4"])
def test_other_texts_are_refused(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"expected NAME=MIN,OPT,MAX .* got {text}"
    ):
        parse_shapes(text)


def test_the_stock_plugin_is_another_lookup_of_the_same_node():
    ours = onnx.helper.make_node(
        "MultiscaleDeformableAttnPlugin_TRT",
        ["value", "shapes", "starts", "locations", "weights"],
        ["output"],
        domain="trt.plugins",
        plugin_namespace="saymask",
        plugin_version="1",
        aot=1,
    )
    other = onnx.helper.make_node("Relu", ["output"], ["result"])
    expected = onnx.helper.make_node(
        "MultiscaleDeformableAttnPlugin_TRT",
        ours.input,
        ours.output,
        domain="",
        plugin_namespace="",
        plugin_version="2",
    )
    model = onnx.helper.make_model(onnx.helper.make_graph([ours, other], "graph", [], []))
    choose_stock_plugin(model)
    assert list(model.graph.node) == [expected, other]
