"""TPP's four served graphs in ONNX Runtime, with the demo's sizes and fewer layers."""

import warnings
from dataclasses import dataclass, replace

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from transformers import ResNetConfig

from training.networks.tpp.network import Tpp
from training.networks.tpp.profile import demo_profile
from training.networks.tpp.serving_cut import InitGraph, StepGraph, TextEncoderGraph, TrunkGraph


@dataclass
class Case:
    """How a graph is called: its free axes by input, and its outputs."""

    build: type[nn.Module]
    free: dict[str, tuple[int, ...]]
    outputs: list[str]


CASES = {
    "text_encoder": Case(
        TextEncoderGraph,
        {"input_ids": (0, 1), "attention_mask": (0, 1)},
        ["sentences", "fusion_keys", "fusion_values", "pyramid_keys", "pyramid_values"],
    ),
    "trunk": Case(
        TrunkGraph,
        {
            "frames": (0, 2, 3),
            "attention_mask": (0, 1, 2),
            "sentences": (0, 1),
            "fusion_keys": (0, 1, 2),
            "fusion_values": (0, 1, 2),
            "pyramid_keys": (0, 1, 3),
            "pyramid_values": (0, 1, 3),
        },
        ["memory", "memory_keys", "memory_values", "mask_pyramid", "sentence", "prompt_index"],
    ),
    "init": Case(
        InitGraph,
        {"memory": (0, 1), "mask_pyramid": (0, 2, 3), "sentence": (0,), "frame_size": (0,)},
        ["mask_logits", "box", "score", "slot", "track_query", "track_mask"],
    ),
    "step": Case(
        StepGraph,
        {
            "memory": (0, 1),
            "memory_keys": (0, 2, 3),
            "memory_values": (0, 2, 3),
            "mask_pyramid": (0, 2, 3),
            "frame_size": (0,),
            "slot": (0,),
            "previous_box": (0,),
            "previous_track_query": (0,),
            "previous_track_mask": (0, 1, 2),
        },
        ["mask_logits", "box", "score", "track_query", "track_mask"],
    ),
}


@pytest.fixture(scope="module")
def network(randomize):
    backbone = ResNetConfig.from_dict({**demo_profile().backbone.to_dict(), "depths": [1] * 4})
    profile = replace(demo_profile(), backbone=backbone, encoder_layers=1, decoder_layers=2)
    network = randomize(Tpp(profile), seed=3)
    with torch.no_grad():  # its convolutions read pixels: masks are to stay of order one
        for parameter in network.controller.layers[-1].parameters():
            parameter.mul_(0.3)
    return network


def example(network, frames, prompts, words, height, width):
    """Arguments of every graph: what the graphs before it give for random frames and prompts."""
    torch.manual_seed(height)
    graphs = {name: case.build(network).eval() for name, case in CASES.items()}
    input_ids = torch.randint(3, 1536, (prompts, words))
    attention_mask = torch.ones_like(input_ids)
    input_ids[-1, words - 2 :], attention_mask[-1, words - 2 :] = 0, 0
    texts = [attention_mask, *graphs["text_encoder"](input_ids, attention_mask)]
    seen = [torch.randn(frames, 3, height, width)]
    seen += [text.expand(frames, *text.shape).contiguous() for text in texts]
    memory, keys, values, pyramid, sentence, _ = graphs["trunk"](*seen)
    size = torch.tensor([[float(width), float(height)]]).repeat(frames, 1)
    first = (memory, pyramid, sentence, size)
    _, box, _, slot, query, mask = graphs["init"](*first)
    return {
        "text_encoder": (input_ids, attention_mask),
        "trunk": tuple(seen),
        "init": first,
        "step": (memory, keys, values, pyramid, size, slot, box, query, mask),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
@torch.no_grad()
def test_onnx_runtime_computes_the_graph_for_every_number_and_size(network, name, tmp_path):
    case, file = CASES[name], tmp_path / "model.onnx"
    graph = case.build(network).eval()
    # An axis that is one pixel long in the example would stay so: both sides are more than 64.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example(network, 2, 3, 9, 96, 160)[name],
            str(file),
            input_names=list(case.free),
            output_names=case.outputs,
            dynamic_shapes=tuple(
                dict.fromkeys(a, torch.export.Dim.AUTO) for a in case.free.values()
            ),
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    model = onnx.load(str(file))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    for tensor, free in zip(model.graph.input, case.free.values(), strict=True):
        axes = tensor.type.tensor_type.shape.dim
        assert [i for i, axis in enumerate(axes) if axis.dim_param] == list(free), tensor.name
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for sizes in ((2, 3, 9, 96, 160), (3, 2, 5, 70, 101), (1, 1, 7, 160, 160), (1, 3, 12, 32, 40)):
        arguments = example(network, *sizes)[name]
        feed = {key: x.numpy() for key, x in zip(case.free, arguments, strict=True)}
        for output, expected in zip(session.run(None, feed), graph(*arguments), strict=True):
            torch.testing.assert_close(torch.from_numpy(output), expected, atol=1e-4, rtol=1e-5)
