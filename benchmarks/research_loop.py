"""The research-style loop: plain PyTorch, one question after another, everything recomputed.

It runs in a process of its own, so that its threads and memory are not those of the client that
asks the server, and is idle while the server is measured. It starts from the same pixels and words
as the server and ends with the same mask.
"""

import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from benchmarks.closed_loop import Measured
from benchmarks.plain_network import plain_network, source_of
from benchmarks.workload import Case
from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer, medisee_prompt
from serving.preprocessing import check_image, clip_frame, sam_frame
from training.networks.medisee import MediSee


@dataclass(frozen=True)
class LoopAnswers:
    """What the loop says to a list of questions."""

    measured: Measured
    network_ms: dict[str, float]
    """Median time of one pass through each network."""
    masks: list[np.ndarray]
    """(H, W) bool, one per question."""


class ResearchLoop:
    """Handle of the loop's process; leaving its `with` block ends it.

    Args:
        profile: As in `benchmarks.plain_network.source_of`.
        weights: Likewise.
    """

    def __init__(self, profile: str, weights: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, profile, weights), daemon=True)
        self._process.start()
        theirs.close()
        self._about: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def about(self) -> dict[str, Any]:
        """`loop_threads` and `loop_device`; waits until the networks are there."""
        if not self._about:
            self._about = self._receive()
        return self._about

    def answer(self, cases: Sequence[Case]) -> LoopAnswers:
        """Answer the questions one after another.

        Raises:
            RuntimeError: if the process failed; its own error stands above.
        """
        assert self.about
        self._connection.send(list(cases))
        return self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise RuntimeError("the research-style loop ended; its error stands above") from None


def _serve(connection: Connection, profile: str, weights: Path) -> None:
    """Body of the process: answers lists of cases until it receives None."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = source_of(profile, weights)
    assert source.language_model.tokenizer is not None
    tokenizer = LlavaTokenizer(source.language_model.tokenizer, MEDISEE_ADDED_TOKENS)
    network = plain_network(source).to(device)
    clock = _NetworkClock(network)
    connection.send({"loop_threads": threads, "loop_device": device})
    while (cases := connection.recv()) is not None:
        latencies_ms, masks = [], []
        started = time.perf_counter()
        for case in cases:
            one = time.perf_counter()
            masks.append(_mask(network, tokenizer, case))
            latencies_ms.append(1e3 * (time.perf_counter() - one))
        measured = Measured(latencies_ms, time.perf_counter() - started)
        connection.send(LoopAnswers(measured, clock.take(), masks))


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
