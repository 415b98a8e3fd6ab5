"""Command: the served models against independent code with the same weights.

Each component gets its input through the real server and is compared with `benchmarks.references`;
`medisee` compares the whole pipeline, from pixels and words; `medsam_vit_b` the full-size image
encoder, ONNX against `segment_anything`, on random weights. The last line is one JSON object, also
written to `benchmarks/results/parity.json`; every figure is to stay at or below 1e-3 in fp32.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import tritonclient.grpc as grpc
from saymask import mask_codec
from torch import Tensor

from benchmarks.references import (
    LanguageReference,
    LlavaReference,
    SamReference,
    box_of,
    fused,
    projected_text,
)
from benchmarks.results import report
from export.build import example_inputs
from export.random_source import random_source
from export.sources import Source, demo_source
from export.to_onnx import export_onnx
from serving import model_config
from serving.launcher import launch
from serving.llava_prompt import (
    MEDISEE_ADDED_TOKENS,
    MEDISEE_HIDDEN_POSITIONS,
    LlavaTokenizer,
    medisee_prompt,
)
from serving.onnx_session import build_session

GOAL = 1e-3

PICTURES = ((181, 217, 3), (160, 160, 1), (97, 300, 3))
"""Shapes (H, W, C) of the pictures the pipeline is asked about."""

PROMPT = "which structure consolidates memories?"


def main(argv: list[str] | None = None) -> int:
    """Compare and report; the exit code says whether the goal holds everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-full-size", action="store_true", help="leave out medsam_vit_b")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    with launch(["medisee"]) as server:
        differences = Parity(server.grpc_url, demo_source()).differences()
    if not arguments.skip_full_size:
        differences["medsam_vit_b"] = vit_b_difference()
    for name, difference in differences.items():
        print(f"  {name:24s} {difference:.1e}  {'ok' if difference <= GOAL else 'TOO LARGE'}")
    report("parity", {name: {"max_rel_diff": value} for name, value in differences.items()})
    return int(max(differences.values()) > GOAL)


class Parity:
    """Compares one running server with the references.

    Args:
        url: gRPC address.
        source: What the server's models were exported from.
    """

    def __init__(self, url: str, source: Source) -> None:
        self.client = grpc.InferenceServerClient(url)
        self.profile, networks = source.profile, source.networks
        self.sam = SamReference(source.profile, networks)
        self.llava = LlavaReference(source.profile, networks)
        mllm = model_config.read("mllm")
        self.language = LanguageReference(mllm.version_folder, "medisee")
        self.tokenizer = LlavaTokenizer(
            mllm.version_folder / "base" / "tokenizer.model", MEDISEE_ADDED_TOKENS
        )
        self.fusion = networks.fusion.state_dict()
        self.box = networks.box_decoder.state_dict()

    def differences(self) -> dict[str, float]:
        """Worst relative difference by name."""
        return {
            "medsam_image_encoder": self._image_encoder(),
            "llava_image_encoder": self._llava(),
            "mllm": self._language(),
            "medisee_router": self._router(),
            "medisee_box_decoder": self._box_decoder(),
            "medisee_mask_decoder": self._mask_decoder(),
            "medisee": max(self._pipeline(shape) for shape in PICTURES),
        }

    def _image_encoder(self) -> float:
        pixels = torch.randn(2, 3, self.profile.sam_size, self.profile.sam_size)
        served = self._ask("medsam_image_encoder", pixels=pixels)
        return relative(served["image_embedding"], self.sam.sam.image_encoder(pixels))

    def _llava(self) -> float:
        pixels = torch.randn(2, 3, self.profile.clip_size, self.profile.clip_size)
        served = self._ask("llava_image_encoder", pixels=pixels)
        expected = self.llava.tokens(pixels)
        return max(
            relative(served["patch_tokens"], expected[:, 1:]),
            relative(served["cls_token"], expected[:, :1]),
        )

    def _language(self) -> float:
        rows = torch.randn(self.profile.image_tokens, self.profile.mistral.hidden_size)
        ids = medisee_prompt(self.tokenizer, PROMPT)
        expected = self.language.hidden_states(ids, rows, list(MEDISEE_HIDDEN_POSITIONS))
        differences = []
        for _ in range(2):  # computed, then from the prefix cache
            served = self._ask(
                "mllm",
                token_ids=np.array(ids, np.int32),
                embeddings=rows,
                hidden_positions=np.array(MEDISEE_HIDDEN_POSITIONS, np.int32),
                adapter="medisee",
            )
            differences.append(relative(served["hidden_states"][0], expected))
        if served["cached_tokens"][0] == 0:
            raise RuntimeError("mllm: the second request found nothing in the prefix cache")
        return max(differences)

    def _router(self) -> float:
        states = torch.randn(3, 2, self.profile.mistral.hidden_size)
        served = self._ask("medisee_router", hidden_states=states)
        text, box = self._fused(states)
        return max(
            relative(served["text_embedding"], text), relative(served["box_hidden_state"], box)
        )

    def _box_decoder(self) -> float:
        hidden = torch.randn(3, self.profile.mistral.hidden_size)
        served = self._ask("medisee_box_decoder", box_hidden_state=hidden)
        return relative(served["boxes_cxcywh"], box_of(self.box, hidden))

    def _mask_decoder(self) -> float:
        channels = self.profile.sam_decoder.hidden_size
        grid = self.profile.sam_size // self.profile.sam_patch
        embedding, text = torch.randn(1, channels, grid, grid), torch.randn(3, 1, channels)
        boxes = torch.rand(3, 4) * 0.4 + 0.2
        size = self.profile.sam_size
        inner, outer = (size * 3 // 4, size), (151, 201)
        served = self._ask(
            "medisee_mask_decoder",
            image_embedding=embedding,
            text_embedding=text,
            boxes_cxcywh=boxes,
            input_size=np.array([inner], np.int64),
            original_size=np.array([outer], np.int64),
        )
        logits = self.sam.logits(embedding, text, boxes, inner, outer)
        return compare_answer(served, logits, boxes)

    def _pipeline(self, shape: tuple[int, int, int]) -> float:
        image = np.random.default_rng(shape[0]).integers(0, 256, shape, dtype=np.uint8)
        served = self._ask("medisee", image=image, prompt=PROMPT)
        rgb = np.broadcast_to(image, (*shape[:2], 3)).copy()
        pixels, inner = self.sam.frame(rgb)
        embedding = self.sam.sam.image_encoder(pixels[None])
        rows = self.llava.tokens(self.llava.frame(rgb)[None])[0, 1:]
        ids = medisee_prompt(self.tokenizer, PROMPT)
        states = self.language.hidden_states(ids, rows, list(MEDISEE_HIDDEN_POSITIONS))
        text, box_hidden = self._fused(states[None])
        box = box_of(self.box, box_hidden)
        logits = self.sam.logits(embedding, text, box, inner, shape[:2])
        return compare_answer(served, logits, box)

    def _fused(self, states: Tensor) -> tuple[Tensor, Tensor]:
        h_seg, h_box = states[:, 0], states[:, 1]
        text = projected_text(self.fusion, fused(self.fusion, "router_seg", h_seg, h_box))
        return text[:, None], fused(self.fusion, "router_box", h_seg, h_box)

    def _ask(self, model: str, **inputs: np.ndarray | Tensor | str) -> dict[str, np.ndarray]:
        config = model_config.read(model)
        tensors = []
        for name, value in inputs.items():
            if isinstance(value, str):
                array = np.array([value.encode()], np.object_)
            else:
                array = value.numpy() if isinstance(value, Tensor) else value
            tensor = grpc.InferInput(name, list(array.shape), config.input(name).wire_type)
            tensors.append(tensor.set_data_from_numpy(array))
        result = self.client.infer(model, tensors)
        return {name: result.as_numpy(name) for name in config.output_names}


def compare_answer(served: dict[str, np.ndarray], logits: Tensor, boxes_cxcywh: Tensor) -> float:
    """Worst of: relative difference of boxes and scores, share of pixels on the other side.

    Args:
        served: masks, boxes_xyxy and scores of a server's answer.
        logits: (P, H, W) of the reference.
        boxes_cxcywh: (P, 4) of the reference, in [0, 1].
    """
    height, width = logits.shape[1:]
    foreground = logits > 0
    area = foreground.sum(dim=(1, 2))
    scores = (logits.sigmoid() * foreground).sum(dim=(1, 2)) / area.clamp(min=1)
    center, size = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    corners = torch.cat([center - size / 2, center + size / 2], dim=1)
    masks = mask_codec.decode(served["masks"], width)
    return max(
        float((masks != foreground.numpy()).mean()),
        relative(served["boxes_xyxy"], corners * torch.tensor([width, height, width, height])),
        relative(served["scores"], scores),
    )


def vit_b_difference() -> float:
    """Full-size image encoder on random weights: our ONNX file against `segment_anything`."""
    source = random_source("full-sam")
    name = "medsam_image_encoder"
    pixels = torch.randn(1, 3, 1024, 1024)
    expected = SamReference(source.profile, source.networks).sam.image_encoder(pixels)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        config = model_config.read(name)
        encoder = source.networks.image_encoder
        export_onnx(encoder, config, example_inputs(source.profile)[name], file)
        session = build_session(file, config)
        (embedding,) = session.run(["image_embedding"], {"pixels": pixels.numpy()})
    return relative(embedding, expected)


def relative(value: np.ndarray, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected magnitude."""
    reference = expected.numpy()
    if value.shape != reference.shape:
        raise ValueError(f"shape {value.shape}, expected {reference.shape}")
    return float(np.abs(value - reference).max() / max(1e-12, np.abs(reference).max()))


if __name__ == "__main__":
    raise SystemExit(main())
