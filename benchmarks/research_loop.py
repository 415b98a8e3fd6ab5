"""MediSee's research-style loop: plain PyTorch, one question after another, all recomputed.

It starts from the same pixels and words as the server and ends with the same mask.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from benchmarks.closed_loop import Measured
from benchmarks.loop_process import LoopProcess
from benchmarks.plain_network import plain_network
from benchmarks.workload import Case
from export.sources import Source
from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer, medisee_prompt
from serving.preprocessing import check_image, clip_frame, sam_frame
from training.networks.medisee import MediSee
from training.networks.profiles import ProfileName


@dataclass(frozen=True)
class LoopAnswers:
    """What the loop says to a list of questions."""

    measured: Measured
    network_ms: dict[str, float]
    """Median time of one pass through each network."""
    masks: list[np.ndarray]
    """(H, W) bool, one per question."""


class ResearchLoop(LoopProcess):
    """The loop, in a process of its own.

    Args:
        profile: As in `benchmarks.plain_network.source_of`.
        weights: Likewise.
    """

    def __init__(self, profile: ProfileName, weights: Path) -> None:
        super().__init__(_start, profile, weights)

    def answer(self, cases: Sequence[Case]) -> LoopAnswers:
        """Answer the questions one after another."""
        answers: LoopAnswers = self.work(list(cases))
        return answers


def _start(source: Source, device: torch.device) -> Callable[[list[Case]], LoopAnswers]:
    assert source.language_model.tokenizer is not None
    tokenizer = LlavaTokenizer(source.language_model.tokenizer, MEDISEE_ADDED_TOKENS)
    network = plain_network(source, MediSee).to(device)
    clock = _NetworkClock(network)

    def answer(cases: list[Case]) -> LoopAnswers:
        latencies_ms, masks = [], []
        started = time.perf_counter()
        for case in cases:
            one = time.perf_counter()
            masks.append(_mask(network, tokenizer, case))
            latencies_ms.append(1e3 * (time.perf_counter() - one))
        measured = Measured(latencies_ms, time.perf_counter() - started)
        return LoopAnswers(measured, clock.take(), masks)

    return answer


def _mask(network: MediSee, tokenizer: LlavaTokenizer, case: Case) -> np.ndarray:
    """Mask (H, W) bool of one question, from pixels and words."""
    image = check_image(case.image[..., np.newaxis])
    profile, device = network.profile, network.embed_tokens.weight.device
    sam_pixels, input_size = sam_frame(image, profile.sam_size)
    output = network.answer(
        torch.from_numpy(sam_pixels).to(device),
        torch.from_numpy(clip_frame(image, profile.clip_size)).to(device),
        medisee_prompt(tokenizer, case.prompt),
        input_size,
        (image.shape[0], image.shape[1]),
    )
    return (output.mask_logits > 0).cpu().numpy()


class _NetworkClock:
    """Times every pass through the networks."""

    def __init__(self, network: MediSee) -> None:
        self._passes: dict[str, list[float]] = defaultdict(list)
        self._started: dict[str, float] = {}
        parts: dict[str, nn.Module] = {
            "medsam_image_encoder": network.image_encoder,
            "llava_image_encoder": network.llava_image_encoder,
            "mllm": network.mllm.model.model,
            "medisee_router": network.fusion,
            "medisee_box_decoder": network.box_decoder,
            "medisee_mask_decoder": network.mask_decoder,
        }
        for name, part in parts.items():
            part.register_forward_pre_hook(lambda *_, name=name: self._start(name))
            part.register_forward_hook(lambda *_, name=name: self._stop(name))

    def take(self) -> dict[str, float]:
        """Median milliseconds of a pass since the last call."""
        medians = {name: median(times) for name, times in self._passes.items()}
        self._passes.clear()
        return medians

    def _start(self, name: str) -> None:
        _wait_for_device()
        self._started[name] = time.perf_counter()

    def _stop(self, name: str) -> None:
        _wait_for_device()
        self._passes[name].append(1e3 * (time.perf_counter() - self._started[name]))


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
