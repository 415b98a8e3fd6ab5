"""MediSee's component models asked one by one: what each branch takes when it runs alone."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tritonclient.grpc as triton

from benchmarks.step_traces import StepTraces
from benchmarks.triton_calls import Tensors, infer
from benchmarks.workload import Case

DECODER = "medisee_mask_decoder"

_CALLS = 7


@dataclass(frozen=True)
class Alone:
    """One question, its two branches and the decoder computed one after another."""

    sam_branch_ms: float
    """`medsam_image_embedding` with its encoder."""
    language_branch_ms: float
    """`llava_image_tokens` with its encoder, `mllm`, router and box decoder."""
    decoder_ms: float
    """`medisee_mask_decoder`."""
    cached_tokens: int
    """Positions of the language model's prompt that its prefix cache had."""
    computed_tokens: int
    """The others."""


class Components:
    """Asks component models; times are the server's own, without client and network.

    Args:
        client: Connection to the server.
        traces: Traces of the same server.
    """

    def __init__(self, client: triton.InferenceServerClient, traces: StepTraces) -> None:
        self._client = client
        self._traces = traces

    def measure(self, cases: Sequence[Case]) -> list[Alone]:
        """Run the components of each question, nothing at the same time."""
        return [self._measure(case) for case in cases]

    def _measure(self, case: Case) -> Alone:
        image = case.image[..., np.newaxis]
        prompt = np.array([case.prompt.encode()], np.object_)
        ids: dict[str, str] = {}
        self._traces.expect(_CALLS)

        def ask(model: str, inputs: Tensors) -> Tensors:
            ids[model] = uuid.uuid4().hex
            return infer(self._client, model, inputs, ids[model])

        embedded = ask("medsam_image_embedding", {"image": image})
        patches = ask("llava_image_tokens", {"image": image})["patch_tokens"]
        prompted = ask("medisee_prompt", {"prompt": prompt})
        answer = ask("mllm", {**prompted, "embeddings": patches})
        # The two ONNX models after `mllm` batch: its leading axis of one is their batch.
        routed = ask("medisee_router", {"hidden_states": answer["hidden_states"]})
        box = ask("medisee_box_decoder", {"box_hidden_state": routed["box_hidden_state"]})
        ask(DECODER, {**embedded, "text_embedding": routed["text_embedding"], **box})

        took_ms = {}
        traces = self._traces.of(list(ids.values()))
        for model, trace in zip(ids, traces, strict=True):
            took_ms[model] = trace[model].answered_ms - trace[model].start_ms
        return Alone(
            sam_branch_ms=took_ms["medsam_image_embedding"],
            # Tokens and prompt do not wait for each other.
            language_branch_ms=max(took_ms["llava_image_tokens"], took_ms["medisee_prompt"])
            + took_ms["mllm"]
            + took_ms["medisee_router"]
            + took_ms["medisee_box_decoder"],
            decoder_ms=took_ms[DECODER],
            cached_tokens=int(answer["cached_tokens"][0]),
            computed_tokens=int(answer["computed_tokens"][0]),
        )
