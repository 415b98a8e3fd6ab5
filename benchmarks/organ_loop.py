"""Organ-Seg's research-style loop: plain PyTorch, one question after another, all recomputed.

The paper published no code; as its figure has it both branches run for every question, so a refusal
costs what an outline costs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.closed_loop import Measured
from benchmarks.loop_process import LoopProcess
from benchmarks.plain_network import plain_network
from benchmarks.workload import Case
from export.sources import Source
from serving.llava_prompt import LlavaTokenizer
from serving.organseg import FOUND, decide, is_visible
from serving.organseg_prompt import organseg_prompt
from serving.preprocessing import check_image, medsam_frame, square_clip_frame
from training.context_cache import Context, load_context
from training.networks.organseg import OrganSeg
from training.networks.profiles import ProfileName


@dataclass(frozen=True)
class OrganAnswers:
    """What the loop says to a list of questions."""

    measured: Measured
    masks: list[np.ndarray]
    """(H, W) bool, one per question; empty where nothing was found."""


class OrganLoop(LoopProcess):
    """The loop, in a process of its own.

    Args:
        profile: As in `benchmarks.plain_network.source_of`.
        weights: Likewise.
    """

    def __init__(self, profile: ProfileName, weights: Path) -> None:
        super().__init__(_start, profile, weights)

    def answer(self, cases: Sequence[Case]) -> OrganAnswers:
        """Answer the questions one after another."""
        answers: OrganAnswers = self.work(list(cases))
        return answers


def _start(source: Source, device: torch.device) -> Callable[[list[Case]], OrganAnswers]:
    assert source.language_model.tokenizer is not None
    assert source.organseg is not None
    tokenizer = LlavaTokenizer(source.language_model.tokenizer)
    template = source.organseg.template
    context = load_context(source.organseg.context)
    context = replace(context, matrix=context.matrix.to(device))
    network = plain_network(source, OrganSeg).to(device)

    def answer(cases: list[Case]) -> OrganAnswers:
        latencies_ms, masks = [], []
        started = time.perf_counter()
        for case in cases:
            one = time.perf_counter()
            token_ids = organseg_prompt(tokenizer, case.prompt, template)
            masks.append(organ_mask(network, token_ids, case.image, context, device))
            latencies_ms.append(1e3 * (time.perf_counter() - one))
        return OrganAnswers(Measured(latencies_ms, time.perf_counter() - started), masks)

    return answer


def organ_mask(
    network: OrganSeg,
    token_ids: list[int],
    picture: np.ndarray,
    context: Context,
    device: torch.device,
) -> np.ndarray:
    """Mask (H, W) bool of one question, empty unless the organ is found; all is computed anyway."""
    image = check_image(picture[..., np.newaxis])
    output = network.answer(
        torch.from_numpy(medsam_frame(image, network.profile.sam_size)).to(device),
        torch.from_numpy(square_clip_frame(image, network.profile.clip_size)).to(device),
        token_ids,
        (image.shape[0], image.shape[1]),
        context,
    )
    decision = decide(output.similarities.cpu().numpy(), output.presence.item(), least_margin=0.0)
    probabilities = output.mask_probabilities.cpu().numpy()
    mask: np.ndarray = probabilities > 0.5
    score = float(probabilities[mask].mean()) if mask.any() else 0.0
    shown = decision.outcome == FOUND and is_visible(output.presence.item(), score)
    return mask if shown else np.zeros_like(mask)
