"""The asyncio client: the twin of `saymask.Client`, with the same answers.

It has the same calls but `submit`: `asyncio.create_task` does that here. Cancelling a task ends its
call here; the server finishes the work it has begun.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from saymask import _protocol
from saymask._conversation_protocol import Metadata
from saymask._conversation_state import BETA, JUDGE, ConversationState, state_to_resume
from saymask._inputs import ImageLike, check_image, check_prompt, check_prompts
from saymask._retry import Deadline, RetryPolicy
from saymask.aio_conversation import Conversation
from saymask.connection import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_URL, Connection, Tls
from saymask.conversation_file import ConversationImage, SavedConversation, load
from saymask.conversation_replay import Replay, replay
from saymask.errors import Cancelled, SaymaskError
from saymask.organs import OrganFinding, findings_of, organ_request
from saymask.results import Health, ModelInfo, Segmentation
from saymask.windowing import SOFT_TISSUE_HU

__all__ = ["Client", "ExplanationStream"]


class Client:
    """Asks a saymask server about images, without blocking the event loop.

    Belongs to the event loop in which it is first used; closed by `await close()` or by leaving
    its `async with` block. Arguments are those of `saymask.Client`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 60.0,
        retries: int = 2,
        tls: Tls | bool | None = None,
        headers: Mapping[str, str] | None = None,
        max_in_flight: int = 8,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        Deadline(timeout_s)  # checked now rather than in the first call
        self._timeout_s = timeout_s
        self._retry = RetryPolicy(retries)
        self._connection = Connection(url, tls, headers, max_in_flight, max_message_bytes)
        self._channel: Any = None

    async def segment(
        self,
        image: ImageLike,
        prompt: str,
        *,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> Segmentation:
        """Ask one question about one image; see `saymask.Client.segment`."""
        deadline, stopwatch = self._deadline(timeout_s), _protocol.Stopwatch()
        pixels = await asyncio.to_thread(check_image, image)  # it may read and decode a file
        request = _protocol.infer_request(
            _protocol.MASK_PIPELINE,
            pixels,
            check_prompt(prompt),
            max_message_bytes=self._connection.max_message_bytes,
        )
        # The stream runs on the server while the mask is made; its text waits in the channel.
        stream = self._explain(pixels, prompt, deadline) if explain else None
        try:
            stopwatch.lap("prepare")
            response = await self._call(self._stub().ModelInfer, request, deadline)
            stopwatch.lap("round_trip")
            segmentation = _protocol.segmentation_of(response, prompt, pixels.shape)
            stopwatch.lap("decode")
            if stream is not None:
                explanation = "".join([piece async for piece in stream])
                segmentation = replace(segmentation, explanation=explanation)
                stopwatch.lap("explain")
        finally:
            if stream is not None:
                await stream.aclose()
        return replace(segmentation, timings_ms=stopwatch.timings_ms())

    async def segment_many(
        self,
        image: ImageLike,
        prompts: Sequence[str],
        *,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> list[Segmentation]:
        """Ask several questions about one image, at the same time; answers in their order.

        The first error is raised, and the other requests are then cancelled.
        """
        deadline, prompts = self._deadline(timeout_s), check_prompts(prompts)
        pixels = await asyncio.to_thread(check_image, image)
        places = asyncio.Semaphore(self._connection.max_in_flight)

        async def ask(prompt: str) -> Segmentation:
            async with places:
                # A moment is left, so that running out of time is the deadline's own error.
                return await self.segment(
                    pixels,
                    prompt,
                    explain=explain,
                    timeout_s=max(deadline.remaining_s(), 1e-3),
                )

        tasks = [asyncio.create_task(ask(prompt)) for prompt in prompts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def find_organs(
        self,
        image: ImageLike,
        prompt: str,
        *,
        least_margin: float | None = None,
        timeout_s: float | None = None,
    ) -> tuple[OrganFinding, ...]:
        """Ask for one or more organs; see `saymask.Client.find_organs`."""
        deadline, stopwatch = self._deadline(timeout_s), _protocol.Stopwatch()
        pixels = await asyncio.to_thread(check_image, image, ct_window=SOFT_TISSUE_HU)
        request = organ_request(
            pixels,
            check_prompt(prompt),
            least_margin,
            max_message_bytes=self._connection.max_message_bytes,
        )
        stopwatch.lap("prepare")
        response = await self._call(self._stub().ModelInfer, request, deadline)
        stopwatch.lap("round_trip")
        findings = findings_of(response, pixels.shape)
        stopwatch.lap("decode")
        timings_ms = stopwatch.timings_ms()
        return tuple(replace(finding, timings_ms=timings_ms) for finding in findings)

    def conversation(
        self,
        image: ImageLike,
        *,
        beta: float = BETA,
        judge: str = JUDGE,
        timeout_s: float | None = None,
    ) -> Conversation:
        """Begin a conversation: `async with client.conversation(image) as chat`.

        See `saymask.Client.conversation`. This is no coroutine, so the path of a file would be read
        on the event loop: pass what `await asyncio.to_thread(saymask.read_image, path,
        ct_window=SOFT_TISSUE_HU)` returns.
        """
        state = ConversationState(
            ConversationImage.of(image),
            beta,
            judge,
            retry=self._retry,
            max_message_bytes=self._connection.max_message_bytes,
        )
        return Conversation(self, state, timeout_s)

    async def resume_conversation(
        self,
        conversation: str | Path,
        *,
        image: "ImageLike | None" = None,
        timeout_s: float | None = None,
    ) -> Conversation:
        """Go on with a stored conversation; see `saymask.Client.resume_conversation`."""
        state = await asyncio.to_thread(
            state_to_resume,
            conversation,
            image,
            retry=self._retry,
            max_message_bytes=self._connection.max_message_bytes,
        )
        resumed = Conversation(self, state, timeout_s)
        try:
            await resumed._run(state.resume, timeout_s)
        except SaymaskError:
            await resumed.close()
            raise
        return resumed

    async def replay_conversation(
        self,
        file: str | Path,
        *,
        image: "ImageLike | None" = None,
        timeout_s: float | None = None,
    ) -> Replay[Conversation]:
        """Ask a saved conversation again; see `saymask.Client.replay_conversation`."""

        def read() -> tuple[SavedConversation, ConversationImage]:
            recorded = load(file)
            return recorded, recorded.read_image() if image is None else recorded.checked(image)

        recorded, about = await asyncio.to_thread(read)
        state = ConversationState(
            about,
            recorded.beta,
            recorded.judge,
            retry=self._retry,
            max_message_bytes=self._connection.max_message_bytes,
        )
        again = Conversation(self, state, timeout_s)
        differences = await again._run(
            lambda _: replay(state, recorded, lambda: self._deadline(timeout_s)), timeout_s
        )
        return Replay(again, differences)

    def explain(
        self, image: ImageLike, prompt: str, *, timeout_s: float | None = None
    ) -> "ExplanationStream":
        """Ask for an explanation: `async for piece in client.explain(image, prompt)`.

        This is no coroutine, so the path of a file would be read on the event loop: pass what
        `await asyncio.to_thread(saymask.read_image, path)` returns.
        """
        return self._explain(check_image(image), prompt, self._deadline(timeout_s))

    async def health(self, *, timeout_s: float | None = None) -> Health:
        """Ask how the server is; see `saymask.Client.health`."""
        deadline, stub = self._deadline(timeout_s), self._stub()
        live = await self._call(stub.ServerLive, service_pb2.ServerLiveRequest(), deadline)
        ready = await self._call(stub.ServerReady, service_pb2.ServerReadyRequest(), deadline)
        server = await self._call(
            stub.ServerMetadata, service_pb2.ServerMetadataRequest(), deadline
        )
        pipelines = {}
        for name in _protocol.PIPELINES:
            request = service_pb2.ModelReadyRequest(name=name)
            pipelines[name] = (await self._call(stub.ModelReady, request, deadline)).ready
        return Health(f"{server.name} {server.version}", live.live, ready.ready, pipelines)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """List the models the server has loaded, sorted by name and version."""
        deadline, stub = self._deadline(timeout_s), self._stub()
        everything = service_pb2.ModelStatisticsRequest()
        loaded = (await self._call(stub.ModelStatistics, everything, deadline)).model_stats
        models = []
        for name, version in sorted((model.name, model.version) for model in loaded):
            which = {"name": name, "version": version}
            ready = await self._call(
                stub.ModelReady, service_pb2.ModelReadyRequest(**which), deadline
            )
            metadata = await self._call(
                stub.ModelMetadata, service_pb2.ModelMetadataRequest(**which), deadline
            )
            models.append(_protocol.model_info_of(version, ready.ready, metadata))
        return models

    async def close(self) -> None:
        """Cancel what is in flight, which then raises `Cancelled`, and close the connection."""
        self._connection.closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _deadline(self, timeout_s: float | None) -> Deadline:
        self._connection.check_open()
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _stub(self) -> Any:
        self._connection.check_open()  # again, for whoever has awaited since the call began
        if self._channel is None:  # made here, inside the event loop it will belong to
            address, options = self._connection.url, self._connection.options
            self._channel = (
                grpc.aio.insecure_channel(address, options)
                if self._connection.credentials is None
                else grpc.aio.secure_channel(address, self._connection.credentials, options)
            )
        return service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def _explain(self, image: ImageLike, prompt: str, deadline: Deadline) -> "ExplanationStream":
        request = _protocol.explanation_request(
            check_image(image),
            check_prompt(prompt),
            max_message_bytes=self._connection.max_message_bytes,
        )
        return ExplanationStream(self._connection, self._stub(), request, deadline, self._retry)

    async def _call(self, method: Any, request: Any, deadline: Deadline) -> Any:
        """Send one request until it is answered, or no further attempt is due."""
        attempt = 0
        while True:
            try:
                return await self._send(method, request, deadline)
            except SaymaskError as error:
                delay_s = self._retry.delay_s(attempt, error, deadline)
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)
            attempt += 1

    async def _send(
        self, method: Any, request: Any, deadline: Deadline, metadata: Metadata = ()
    ) -> Any:
        """Send one request once; `metadata` goes with it beside the connection's."""
        request_id = getattr(request, "id", None)
        self._connection.check_open()  # it may have been closed since the call began
        try:
            return await method(
                request,
                timeout=deadline.remaining_s(),
                metadata=self._connection.metadata + metadata,
            )
        except grpc.aio.AioRpcError as rpc_error:
            raise self._connection.error_of(rpc_error, request_id) from rpc_error
        except asyncio.CancelledError:
            if _task_is_cancelled():
                raise
            raise Cancelled("the client was closed meanwhile", request_id=request_id) from None


class ExplanationStream(AsyncIterator[str]):
    """The pieces of one explanation; made by `Client.explain`.

    `await aclose()`, leaving its `async with` block, or cancelling the task that iterates ends the
    call here; the server finishes the text it has begun. It is asked again after `Unavailable`
    only while no piece has come.
    """

    def __init__(
        self,
        connection: Connection,
        stub: Any,
        request: Any,
        deadline: Deadline,
        retry: RetryPolicy,
    ) -> None:
        self._connection = connection
        self._stub = stub
        self._request = request
        self._deadline = deadline
        self._retry = retry
        self._attempt = 0
        self._started = False
        self._closed = asyncio.Event()
        self._rpc: Any = None  # for `__del__`, if there is no start
        self._rpc = self._start()

    async def __anext__(self) -> str:
        while (rpc := self._rpc) is not None:  # `aclose`, in another task, may take it away
            try:
                text = await self._read(rpc)
            except SaymaskError as error:
                self._let_go()
                await self._wait_for_retry(error)
                self._rpc = self._start()
            except BaseException:
                self._let_go()
                raise
            else:
                if text is None:
                    self._let_go()
                elif text:
                    self._started = True
                    return text
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the call and the iteration; a task that waits for a piece gets `Cancelled`."""
        self._closed.set()
        self._let_go()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        """Cancel what has not come yet, and end the task that keeps our side of the stream open."""
        rpc, self._rpc = self._rpc, None
        if rpc is not None:
            rpc.cancel()
            self._all_came.set()  # gRPC does not end that task of a call that is over

    async def _read(self, rpc: Any) -> str | None:
        """Return the next piece, maybe ""; None at the end."""
        try:
            streamed = await rpc.read()
            if streamed is grpc.aio.EOF:
                return None
            error = self._connection.error_in(streamed, self._request.id)
            if error is not None or _protocol.is_last(streamed):
                self._all_came.set()
            if error is not None:
                while await rpc.read() is not grpc.aio.EOF:
                    pass  # to its end: cancelling a stream can crash Triton 2.51
        except grpc.aio.AioRpcError as rpc_error:
            raise self._connection.error_of(rpc_error, self._request.id) from rpc_error
        except asyncio.CancelledError:
            if _task_is_cancelled():
                raise
            raise Cancelled("closed meanwhile", request_id=self._request.id) from None
        if error is not None:
            raise error
        return _protocol.text_of(streamed)

    def _start(self) -> Any:
        self._connection.check_open()
        self._all_came = asyncio.Event()
        return self._stub.ModelStreamInfer(
            _open_until(self._all_came, self._request),
            timeout=self._deadline.remaining_s(),
            metadata=self._connection.metadata,
        )

    async def _wait_for_retry(self, error: SaymaskError) -> None:
        """Wait until the next attempt is due, or raise what went wrong."""
        delay_s = (
            None if self._started else self._retry.delay_s(self._attempt, error, self._deadline)
        )
        if delay_s is None:
            raise error
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), delay_s)
        if self._closed.is_set():
            raise Cancelled("closed here, while waiting to try again")
        self._attempt += 1


def _task_is_cancelled() -> bool:
    """Return whether a `CancelledError` is for this task, not gRPC's word for a call we closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _open_until(all_came: asyncio.Event, request: Any) -> AsyncIterator[Any]:
    """Send one request, and keep this side of the stream open until all answers have come."""
    yield request
    await all_came.wait()
