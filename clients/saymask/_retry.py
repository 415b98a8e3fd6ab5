"""How long a call may take and when it is tried again; knows nothing of gRPC."""

import math
import random
import time
from dataclasses import dataclass

from saymask.errors import InvalidArgument, SaymaskError, Unavailable


class Deadline:
    """A moment that all attempts of one call share.

    Args:
        timeout_s: seconds from now; positive and finite.
    """

    def __init__(self, timeout_s: float) -> None:
        if not (isinstance(timeout_s, int | float) and 0 < timeout_s < math.inf):
            raise InvalidArgument(f"timeout_s: expected seconds above 0, got {timeout_s!r}")
        self._end = time.monotonic() + timeout_s

    def remaining_s(self) -> float:
        """Return the seconds left; 0 once it has passed."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True)
class RetryPolicy:
    """When a call that changes nothing on the server is sent again."""

    retries: int = 2
    """Attempts after the first; 0 sends once."""
    first_delay_s: float = 0.2
    """Longest wait before the first retry; doubles with each."""
    max_delay_s: float = 5.0
    """Longest wait before any retry."""

    def __post_init__(self) -> None:
        if not (isinstance(self.retries, int) and self.retries >= 0):
            raise InvalidArgument(f"retries: expected a count from 0 on, got {self.retries!r}")

    def delay_s(self, attempt: int, error: SaymaskError, deadline: Deadline) -> float | None:
        """Return how long to wait before the next attempt, or None to give up.

        Args:
            attempt: attempts that have failed before this one.
            error: how this attempt failed; only `Unavailable` is worth a retry.
            deadline: the wait and at least a moment after it must fit.
        """
        if not isinstance(error, Unavailable) or attempt >= self.retries:
            return None
        longest_s = min(self.first_delay_s * 2**attempt, self.max_delay_s)
        # Half fixed, half random: clients turned away together do not come back together.
        delay_s = longest_s * random.uniform(0.5, 1.0)
        return delay_s if delay_s < deadline.remaining_s() else None
