"""An answer that is waited for later."""

from concurrent.futures import CancelledError, Future

from saymask._cancellation import Cancellation
from saymask.errors import Cancelled, DeadlineExceeded
from saymask.results import Segmentation


class PendingSegmentation:
    """An answer on its way; made by `Client.submit`."""

    def __init__(self, future: Future[Segmentation], cancellation: Cancellation) -> None:
        self._future = future
        self._cancellation = cancellation

    def result(self, timeout_s: float | None = None) -> Segmentation:
        """Wait for the answer.

        Args:
            timeout_s: longest wait here; the request goes on after it. None waits for the
                request's own deadline.

        Raises:
            DeadlineExceeded: if it is not there in time.
            Cancelled: if it was cancelled.
            SaymaskError: as `Client.segment` raises.
        """
        try:
            return self._future.result(timeout_s)
        except CancelledError:
            raise Cancelled("cancelled before it was sent") from None
        except DeadlineExceeded:  # the request's own, and a TimeoutError too
            raise
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer within {timeout_s} s; the request goes on: "
                "wait again with result(), or end it with cancel()"
            ) from None

    def done(self) -> bool:
        """Return whether `result` answers, or raises, at once."""
        return self._future.done()

    def cancel(self) -> None:
        """End the request here; the server finishes the work it has begun.

        Does nothing once it is answered.
        """
        self._future.cancel()
        self._cancellation.cancel()
