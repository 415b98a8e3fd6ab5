"""The served mask decoder: what SAM's way back, numpy's packing and plain means give."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export.components import MediSeeMaskDecoder
from export.to_onnx import export_onnx
from serving import model_config
from training.networks.sam import PromptedMaskDecoder

FRAME = 128
SIZES = [
    ((128, 128), (128, 128)),
    ((96, 128), (75, 100)),
    ((128, 90), (301, 211)),
    ((128, 1), (700, 3)),
    ((1, 128), (2, 300)),
    ((128, 128), (1, 1)),
    ((128, 112), (8, 7)),
    ((112, 128), (15, 17)),
]
"""(h', w') inside the frame, (H, W) of the picture; widths on all sides of multiples of 8."""


class Fixed(nn.Module):
    """A decoder whose low-resolution logits are given."""

    image_size = FRAME

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, image_embedding, text_embedding, boxes_cxcywh):
        return self.logits[None]


def sizes(input_size, original_size):
    return torch.tensor([input_size]), torch.tensor([original_size])


def expected(logits, boxes, input_size, original_size):
    frame = F.interpolate(logits[None], (FRAME, FRAME), mode="bilinear", align_corners=False)
    cropped = frame[..., : input_size[0], : input_size[1]]
    whole = F.interpolate(cropped, original_size, mode="bilinear", align_corners=False)[0].numpy()
    masks = whole > 0
    probabilities = 1 / (1 + np.exp(-whole.astype(np.float64)))
    scores = [p[m].mean() if m.any() else 0.0 for p, m in zip(probabilities, masks, strict=True)]
    height, width = original_size
    cx, cy, w, h = boxes.numpy().T
    corners = [
        (cx - w / 2) * width,
        (cy - h / 2) * height,
        (cx + w / 2) * width,
        (cy + h / 2) * height,
    ]
    return masks, np.packbits(masks, axis=-1), np.stack(corners, axis=1), np.array(scores)


def blobs(count, seed=0):
    noise = torch.randn(count, 32, 32, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise[:, None], 5, stride=1, padding=2)[:, 0] * 8


BOXES = torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.1, 0.9, 0.6, 0.4], [0.3, 0.2, 0.0, 1.0]])


@torch.no_grad()
@pytest.mark.parametrize(("input_size", "original_size"), SIZES)
def test_masks_boxes_and_scores_are_those_of_numpy(input_size, original_size):
    logits = blobs(3)
    packed, boxes, scores = MediSeeMaskDecoder(Fixed(logits))(
        torch.zeros(1, 4, 8, 8), torch.zeros(3, 1, 4), BOXES, *sizes(input_size, original_size)
    )
    masks, bits, corners, means = expected(logits, BOXES, input_size, original_size)
    height, width = original_size
    assert (packed.dtype, tuple(packed.shape)) == (torch.uint8, (3, height, -(-width // 8)))
    np.testing.assert_array_equal(packed, bits)
    np.testing.assert_array_equal(np.unpackbits(packed, axis=-1, count=width), masks)
    np.testing.assert_allclose(boxes, corners, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scores, means, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_an_empty_mask_scores_zero_and_a_full_one_nearly_one():
    logits = torch.stack([torch.full((32, 32), -9.0), torch.full((32, 32), 9.0)])
    packed, _, scores = MediSeeMaskDecoder(Fixed(logits))(
        torch.zeros(1, 4, 8, 8), torch.zeros(2, 1, 4), BOXES[:2], *sizes((128, 96), (40, 30))
    )
    assert not packed[0].any()
    assert scores[0] == 0
    assert scores[1] == pytest.approx(1 / (1 + np.exp(-9)), abs=1e-6)
    assert packed[1].unique().tolist() == [252, 255]  # the last byte holds 6 pixels of 30


@pytest.fixture(scope="module")
def exported(tiny_profile, tmp_path_factory):
    torch.manual_seed(0)
    served = MediSeeMaskDecoder(PromptedMaskDecoder(tiny_profile)).eval()
    file = tmp_path_factory.mktemp("decoder") / "model.onnx"
    inputs = {
        "image_embedding": torch.zeros(1, 32, 8, 8),
        "text_embedding": torch.zeros(2, 1, 32),
        "boxes_cxcywh": torch.full((2, 4), 0.5),
        "input_size": torch.tensor([[128, 96]]),
        "original_size": torch.tensor([[200, 151]]),
    }
    export_onnx(served, model_config.read("medisee_mask_decoder"), inputs, file)
    return served, ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@torch.no_grad()
@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize(("input_size", "original_size"), SIZES)
def test_the_exported_graph_computes_the_same_for_any_size(
    exported, input_size, original_size, prompts
):
    served, session = exported
    generator = torch.Generator().manual_seed(prompts)
    inputs = {
        "image_embedding": torch.randn(1, 32, 8, 8, generator=generator),
        "text_embedding": torch.randn(prompts, 1, 32, generator=generator),
        "boxes_cxcywh": BOXES[:prompts],
    }
    names = ("input_size", "original_size")
    inputs |= dict(zip(names, sizes(input_size, original_size), strict=True))
    packed, boxes, scores = served(*inputs.values())
    answer = session.run(
        ["masks", "boxes_xyxy", "scores"], {name: value.numpy() for name, value in inputs.items()}
    )
    assert answer[0].shape == tuple(packed.shape)
    differing = np.unpackbits(answer[0] ^ packed.numpy()).mean()
    assert differing < 2e-3  # logits at the border, within rounding of 0
    np.testing.assert_allclose(answer[1], boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(answer[2], scores, rtol=1e-3, atol=2e-3)
