"""Where the time of one MediSee request goes: the pipeline's steps in the order they wait.

The hops follow each other without a gap and add up to the latency the client saw.
"""

from dataclasses import dataclass

from benchmarks.step_traces import Trace

PIPELINE = "medisee"


@dataclass(frozen=True)
class Hops:
    """One request, at concurrency 1, in milliseconds."""

    client: float
    """Outside the server's pipeline: checks, encoding, gRPC both ways, decoding."""
    checked_request: float
    """Until the branches begin."""
    llava_image_tokens: float
    """Until the language model was asked; prompt and encoder in it."""
    mllm: float
    medisee_router: float
    medisee_box_decoder: float
    wait_for_image_embedding: float
    """Language branch done, MedSAM's embedding not yet; 0 when that was the longer branch."""
    medisee_mask_decoder: float


def hops_of(trace: Trace, latency_ms: float) -> Hops:
    """Read the hops off the trace of one request.

    A step's model is asked when the last of its inputs is there, so the next start is the end of
    the step before; Triton's own marks of `mllm` and the Python models end too early.

    Args:
        trace: Of the pipeline, with its steps.
        latency_ms: What the client measured.
    """
    whole, router, box = trace[PIPELINE], trace["medisee_router"], trace["medisee_box_decoder"]
    tokens, mllm = trace["llava_image_tokens"], trace["mllm"]
    decoder = trace["medisee_mask_decoder"]
    # Either may be first by a hair: the box is passed on while its step is still being closed.
    box_done_ms = min(box.computed_ms, decoder.start_ms)
    return Hops(
        client=latency_ms - (whole.answered_ms - whole.start_ms),
        checked_request=tokens.start_ms - whole.start_ms,
        llava_image_tokens=mllm.start_ms - tokens.start_ms,
        mllm=router.start_ms - mllm.start_ms,
        medisee_router=box.start_ms - router.start_ms,
        medisee_box_decoder=box_done_ms - box.start_ms,
        wait_for_image_embedding=decoder.start_ms - box_done_ms,
        medisee_mask_decoder=whole.answered_ms - decoder.start_ms,
    )
