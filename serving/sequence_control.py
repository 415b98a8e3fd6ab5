"""What Triton's sequence batching says of one request: its sequence, its start and end.

Plain values; `serving.python_model` reads them from the request.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SequenceControl:
    """The place of one request in its sequence."""

    correlation_id: str
    """Id of the sequence; an id that came as a number, in decimal digits. Never empty."""
    start: bool = False
    """The sequence starts, perhaps for a second time."""
    end: bool = False
    """The sequence ends: Triton takes its next request only with a new start."""
