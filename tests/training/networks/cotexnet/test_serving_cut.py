"""The served graphs against the network, in torch and in ONNX Runtime."""

import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.networks.cotexnet.maps import InverseZScore
from training.networks.cotexnet.network import CoTexNet
from training.networks.cotexnet.profile import demo_profile
from training.networks.cotexnet.serving_cut import (
    HeadGraph,
    ImageEncoderGraph,
    PatchExpansion,
    class_token_after,
    folded_modulation,
)

TASKS = ["polyp", "cardiac"]


@torch.no_grad()
@pytest.mark.parametrize("task", TASKS)
def test_the_graphs_are_the_network(network, pixels, task):
    trunk, head = ImageEncoderGraph(network.image_encoder), HeadGraph(network.heads[task])
    features, class_token = trunk(pixels)
    expected_features, expected_token = network.image_encoder(pixels)
    torch.testing.assert_close(features, expected_features, rtol=0, atol=1e-6)
    torch.testing.assert_close(class_token, expected_token, rtol=0, atol=1e-5)
    found, expected = head(features, class_token), network.segment(task, pixels)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_last_layers_first_row_is_computed_alone(network):
    hidden = torch.randn(2, 10, 24)
    layer = network.image_encoder.layers[-1]
    expected = layer(hidden, None)[:, 0]
    torch.testing.assert_close(class_token_after(layer, hidden), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_folded_modulation_is_both_layers_after_the_z_score():
    z_score, factor, term = InverseZScore(), nn.Linear(18, 8), nn.Linear(18, 8)
    z_score.scale.fill_(1.7)
    z_score.shift.fill_(-0.4)
    embedding = torch.rand(5, 18)
    shifted = embedding * 1.7 - 0.4
    expected = torch.cat([factor(shifted), term(shifted)], dim=1)
    torch.testing.assert_close(folded_modulation(z_score, factor, term)(embedding), expected)


@torch.no_grad()
@pytest.mark.parametrize("side", [2, 4])
def test_a_patch_expansion_is_a_transposed_convolution(side):
    convolution = nn.ConvTranspose2d(6, 3, side, stride=side)
    maps = torch.randn(2, 6, 5, 4)
    found = PatchExpansion(convolution)(maps.permute(0, 2, 3, 1))
    laid_out = found.permute(0, 5, 1, 3, 2, 4).reshape(2, 3, 5 * side, 4 * side)
    expected = F.conv_transpose2d(maps, convolution.weight, convolution.bias, stride=side)
    torch.testing.assert_close(laid_out, expected)


@pytest.fixture(scope="module")
def demo():
    torch.manual_seed(0)
    return CoTexNet(demo_profile(), {"polyp": 1, "cardiac": 3}).eval()


def session(graph, inputs, outputs, file):
    """Exported as `export.to_onnx` does, with the number of images free."""
    names = [*inputs, *outputs]
    torch.onnx.export(
        graph.eval(),
        tuple(inputs.values()),
        str(file),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_axes={name: {0: "images"} for name in names},
        opset_version=18,
        dynamo=False,
    )
    return ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_computes_the_same_for_any_number_of_images(demo, tmp_path):
    trunk, example = ImageEncoderGraph(demo.image_encoder), torch.randn(2, 3, 128, 128)
    encoder = session(
        trunk, {"pixels": example}, ["features", "class_token"], tmp_path / "trunk.onnx"
    )
    features, class_token = trunk(example)
    heads = {
        task: session(
            HeadGraph(demo.heads[task]),
            {"features": features, "class_token": class_token},
            ["mask_logits"],
            tmp_path / f"{task}.onnx",
        )
        for task in TASKS
    }
    for images in (1, 3):
        pixels = torch.randn(images, 3, 128, 128)
        features, class_token = encoder.run(None, {"pixels": pixels.numpy()})
        for found, expected in zip((features, class_token), trunk(pixels), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)
        for task, head in heads.items():
            (found,) = head.run(None, {"features": features, "class_token": class_token})
            expected = demo.segment(task, pixels)
            assert found.shape == (images, 1 if task == "polyp" else 4, 128, 128)
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)
