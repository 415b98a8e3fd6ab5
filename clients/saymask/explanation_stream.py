"""Reads the pieces of one explanation as they come."""

import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from saymask import _protocol
from saymask._cancellation import Cancellation
from saymask._retry import Deadline, RetryPolicy
from saymask.connection import Connection
from saymask.errors import SaymaskError


class ExplanationStream(Iterator[str]):
    """The pieces of one explanation; made by `Client.explain`.

    Iterate over it; join the pieces for the whole text. `close`, leaving its `with` block, or
    letting go of it ends the call here; the server finishes the text it has begun. It is asked
    again after `Unavailable` only while no piece has come.
    """

    def __init__(
        self,
        connection: Connection,
        stub: Any,
        request: Any,
        deadline: Deadline,
        retry: RetryPolicy,
        cancellation: Cancellation,
    ) -> None:
        self._connection = connection
        self._stub = stub
        self._request = request
        self._deadline = deadline
        self._retry = retry
        self._cancellation = cancellation
        self._attempt = 0
        self._started = False
        self._sending: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._rpc = self._start()

    def __next__(self) -> str:
        while (rpc := self._rpc) is not None:  # `close`, in another thread, may take it away
            try:
                text = self._read(rpc)
            except StopIteration:
                self._rpc = None
            except SaymaskError as error:
                self._let_go()
                self._wait_for_retry(error)
                self._rpc = self._start()
            except BaseException:
                self._let_go()
                raise
            else:
                if text:
                    self._started = True
                    return text
        raise StopIteration

    def close(self) -> None:
        """End the call and the iteration; a thread that waits for a piece gets `Cancelled`."""
        self._let_go()
        self._cancellation.cancel()  # and a thread that waits for the next attempt

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _let_go(self) -> None:
        rpc, self._rpc = self._rpc, None
        if rpc is not None:
            rpc.cancel()

    def _read(self, rpc: Any) -> str:
        """Return the next piece, maybe ""; `StopIteration` at the end."""
        try:
            streamed = next(rpc)
            error = self._connection.error_in(streamed, self._request.id)
            if error is not None or _protocol.is_last(streamed):
                self._sending.put(None)
            if error is not None:
                for _ in rpc:  # to its end: cancelling a stream can crash Triton 2.51
                    pass
        except grpc.RpcError as rpc_error:
            raise self._connection.error_of(rpc_error, self._request.id) from rpc_error
        if error is not None:
            raise error
        return _protocol.text_of(streamed)

    def _start(self) -> Any:
        sending: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sending.put(self._request)
        try:
            rpc = self._stub.ModelStreamInfer(
                iter(sending.get, None),  # open until None
                timeout=self._deadline.remaining_s(),
                metadata=self._connection.metadata,
            )
        except ValueError:  # what gRPC raises when the channel has been closed meanwhile
            self._connection.check_open()
            raise
        # None ends gRPC's sending thread in every case; a call that is over takes no callback.
        if not rpc.add_callback(lambda: sending.put(None)):
            sending.put(None)
        self._sending = sending
        self._cancellation.watch(rpc)
        return rpc

    def _wait_for_retry(self, error: SaymaskError) -> None:
        """Wait until the next attempt is due, or raise what went wrong."""
        delay_s = (
            None if self._started else self._retry.delay_s(self._attempt, error, self._deadline)
        )
        if delay_s is None:
            raise error
        self._cancellation.sleep(delay_s)
        self._attempt += 1
