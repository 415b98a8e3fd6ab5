"""What calls return: frozen, plain data with numpy arrays; no networking and no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Health", "ModelInfo", "Segmentation", "TensorInfo", "box_from_mask"]

_DEMO_SERVER = "saymask-demo"  # how the launcher names a server of demo weights
_DEMO_NOTE = "demo weights: brain on T1 MRI, abdomen on synthetic CT; not for clinical use"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The answer to one prompt about one image."""

    prompt: str
    """The question as it was asked."""
    mask: NDArray[np.bool_]
    """(H, W) bool on the pixel grid of the image that was sent; true is foreground. Read-only."""
    box_xyxy: NDArray[np.float32]
    """(4,) float32 (x0, y0, x1, y1) in pixels, half-open, as the model predicted it: on its own,
    not from the mask, and not clamped to the image. Read-only."""
    score: float
    """Mean foreground probability of the mask's pixels, each above 0.5; 0 when the mask is empty.
    It does not say whether the mask is the structure that was asked for."""
    label: str | None = None
    """Name the pipeline gave the target; None for `medisee`, which gives none."""
    explanation: str | None = None
    """The model's explanation; None unless it was asked for."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall time on this side: `prepare` (checks and encoding), `round_trip` (network and server,
    every attempt), `explain` (what the explanation took after the mask), `decode`, `total`."""
    model_name: str = ""
    """Pipeline that answered."""
    model_version: str = ""
    """Version of that pipeline, as the server reports it."""
    request_id: str = ""
    """Id under which the server logged the request."""

    @property
    def found(self) -> bool:
        """Whether the mask holds any pixel."""
        return bool(self.mask.any())

    def __repr__(self) -> str:
        parts = {
            "prompt": repr(self.prompt),
            "found": self.found,
            "mask": f"<{' x '.join(map(str, self.mask.shape))}, {int(self.mask.sum())} px>",
            "box_xyxy": [round(float(edge), 1) for edge in self.box_xyxy],
            "score": round(self.score, 3),
            "label": repr(self.label),
            "explanation": repr(self.explanation),
            "timings_ms": {name: round(ms, 1) for name, ms in self.timings_ms.items()},
            "model": f"{self.model_name} {self.model_version}",
            "request_id": repr(self.request_id),
        }
        return f"Segmentation({', '.join(f'{name}={part}' for name, part in parts.items())})"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model."""

    name: str
    """Name of the tensor."""
    dtype: str
    """KServe data type, such as `UINT8`, `FP32` or `BYTES`."""
    shape: tuple[int, ...]
    """-1 stands for a size that varies."""


@dataclass(frozen=True)
class ModelInfo:
    """One model that the server has loaded."""

    name: str
    """Name to call it by."""
    version: str
    """Version number as text."""
    state: str
    """`READY`, or `UNAVAILABLE` when it has stopped answering."""
    inputs: tuple[TensorInfo, ...] = ()
    """Its inputs."""
    outputs: tuple[TensorInfo, ...] = ()
    """Its outputs."""


@dataclass(frozen=True)
class Health:
    """State of a server that answers."""

    server: str
    """Name and version the server gives itself."""
    live: bool
    """The process answers."""
    ready: bool
    """Everything it was told to load is loaded."""
    pipelines: Mapping[str, bool]
    """Whether each public pipeline is ready, by name."""

    @property
    def can_segment(self) -> bool:
        """Whether `Client.segment` will be served."""
        return self.live and self.pipelines.get("medisee", False)

    @property
    def note(self) -> str:
        """What to know of all answers of this server; empty where it says nothing."""
        return _DEMO_NOTE if self.server.startswith(_DEMO_SERVER) else ""


def box_from_mask(mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Return the tightest box around a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        (4,) float32 (x0, y0, x1, y1) pixels, half-open; None for an empty mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return np.array(
        [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1],
        dtype=np.float32,
    )
