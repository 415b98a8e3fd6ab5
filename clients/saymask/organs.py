"""Questions about organs of the abdomen: what they return, and the messages that carry them.

The tensors of the pipeline `organseg` are those of `docs/organseg.md`. Both clients build and read
their messages here; sending is theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saymask import _protocol, mask_codec
from saymask.errors import InvalidArgument
from saymask.results import Segmentation

__all__ = ["OrganFinding"]


@dataclass(frozen=True, eq=False)
class OrganFinding:
    """What a picture shows of one organ that was asked for."""

    question: str
    """The part of the prompt that this answers."""
    outcome: str
    """`found`; `absent`: the organ is known, and this slice does not show it; `irrelevant`: the
    question asks for no organ that the system knows; `uncertain`: it cannot tell which one, as the
    margin is below `least_margin`."""
    label: str | None
    """The organ; of an uncertain outcome the likelier one; None where irrelevant."""
    snomed_code: str | None
    """SNOMED CT code of the body structure, such as "64033007"; None where irrelevant."""
    laterality_code: str | None
    """SNOMED CT code of its side, such as "24028007"; None where it has none."""
    answer: str
    """The outcome in a sentence."""
    mask: NDArray[np.bool_]
    """(H, W) bool on the pixel grid of the image that was sent; empty unless found. Read-only."""
    box_xyxy: NDArray[np.float32] | None
    """(4,) float32 (x0, y0, x1, y1) in pixels, half-open, as the model predicted it, not clamped to
    the image; None unless found."""
    score: float
    """Mean foreground probability of the mask's pixels, each above 0.5; 0 unless found."""
    margin: float
    """Similarity to the best text minus that to the second best, 0 to 2."""
    presence: float
    """Probability that the slice shows the organ; of no meaning where irrelevant."""
    similarities: NDArray[np.float32]
    """(K + 1,) cosines: to each organ of the context cache, then to the irrelevant texts."""
    cache_version: str
    """Digest of the context cache's texts."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall time of the whole request on this side, as `Segmentation.timings_ms`."""
    model_name: str = ""
    """Pipeline that answered."""
    model_version: str = ""
    """Version of that pipeline, as the server reports it."""
    request_id: str = ""
    """Id under which the server logged the request."""

    @property
    def found(self) -> bool:
        """Whether the organ is in the slice, and outlined."""
        return self.outcome == "found"

    def as_segmentation(self) -> Segmentation:
        """Return what `saymask.writers` write; its box is zeros where there is none."""
        return Segmentation(
            prompt=self.question,
            mask=self.mask,
            box_xyxy=np.zeros(4, np.float32) if self.box_xyxy is None else self.box_xyxy,
            score=self.score,
            label=self.label,
            timings_ms=self.timings_ms,
            model_name=self.model_name,
            model_version=self.model_version,
            request_id=self.request_id,
        )

    def __repr__(self) -> str:
        parts = {
            "question": repr(self.question),
            "outcome": repr(self.outcome),
            "label": repr(self.label),
            "snomed_code": repr(self.snomed_code),
            "laterality_code": repr(self.laterality_code),
            "answer": repr(self.answer),
            "mask": f"<{' x '.join(map(str, self.mask.shape))}, {int(self.mask.sum())} px>",
            "score": round(self.score, 3),
            "margin": round(self.margin, 3),
            "presence": round(self.presence, 3),
            "cache_version": repr(self.cache_version),
            "request_id": repr(self.request_id),
        }
        return f"OrganFinding({', '.join(f'{name}={part}' for name, part in parts.items())})"


def organ_request(
    image: NDArray[np.uint8], prompt: str, least_margin: float | None, *, max_message_bytes: int
) -> Any:
    """Build the request of one prompt about one image, as `_protocol.infer_request`.

    Raises:
        InvalidArgument: also if `least_margin` is no number from 0 to 2.
    """
    request = _protocol.infer_request(
        _protocol.ORGAN_PIPELINE, image, prompt, max_message_bytes=max_message_bytes
    )
    if least_margin is not None:
        if not (isinstance(least_margin, int | float) and 0 <= least_margin <= 2):
            raise InvalidArgument(
                f"least_margin: expected a number from 0 (off) to 2, got {least_margin!r}"
            )
        request.inputs.add(name="least_margin", datatype="FP32", shape=[1])
        request.raw_input_contents.append(np.array([least_margin], "<f4").tobytes())
    return request


def findings_of(response: Any, image_shape: tuple[int, ...]) -> tuple[OrganFinding, ...]:
    """Read the answer of the organ pipeline.

    Args:
        response: a `ModelInferResponse`.
        image_shape: (H, W, C) of the image that was sent.

    Raises:
        ServerError: if the tensors are not those of the protocol.
    """
    height, width = image_shape[:2]
    texts = {
        name: _protocol._texts(response, name)
        for name in ("outcomes", "labels", "snomed_codes", "answers", "questions", "cache_version")
    }
    count = len(texts["outcomes"])
    packed_shape = (count, height, mask_codec.packed_width(width))
    packed = _protocol._tensor(response, "masks", "UINT8", np.uint8, packed_shape)
    boxes_xyxy = _protocol._tensor(response, "boxes_xyxy", "FP32", "<f4", (count, 4))
    similarities = _protocol._tensor(response, "similarities", "FP32", "<f4", (count, None))
    numbers = {
        name: _protocol._tensor(response, name, "FP32", "<f4", (count,))
        for name in ("scores", "margins", "presences")
    }
    if any(len(values) != count for name, values in texts.items() if name != "cache_version"):
        raise _protocol._unexpected(
            response, "outcomes, labels, codes, answers and questions are not equally many"
        )
    masks = mask_codec.decode(packed, width)
    masks.flags.writeable = False
    findings = []
    for row, outcome in enumerate(texts["outcomes"]):
        code, _, laterality = texts["snomed_codes"][row].partition(":")
        findings.append(
            OrganFinding(
                question=texts["questions"][row],
                outcome=outcome,
                label=texts["labels"][row] or None,
                snomed_code=code or None,
                laterality_code=laterality or None,
                answer=texts["answers"][row],
                mask=masks[row],
                box_xyxy=boxes_xyxy[row] if outcome == "found" else None,
                score=float(numbers["scores"][row]),
                margin=float(numbers["margins"][row]),
                presence=float(numbers["presences"][row]),
                similarities=similarities[row],
                cache_version="".join(texts["cache_version"]),
                model_name=response.model_name,
                model_version=response.model_version,
                request_id=response.id,
            )
        )
    return tuple(findings)
