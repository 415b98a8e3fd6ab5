"""The blocking client: sends requests, and retries them.

Checks of inputs are in `_inputs`, messages in `_protocol`, patience in `_retry`; the asyncio twin
is `saymask.aio.Client`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from saymask import _protocol
from saymask._cancellation import Cancellation
from saymask._conversation_protocol import Metadata
from saymask._conversation_state import BETA, JUDGE, ConversationState, state_to_resume
from saymask._inputs import ImageLike, check_image, check_prompt, check_prompts
from saymask._retry import Deadline, RetryPolicy
from saymask.connection import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_URL, Connection, Tls
from saymask.conversation import Conversation
from saymask.conversation_file import ConversationImage, load
from saymask.conversation_replay import Replay, replay
from saymask.errors import Cancelled, SaymaskError
from saymask.explanation_stream import ExplanationStream
from saymask.organs import OrganFinding, findings_of, organ_request
from saymask.pending_segmentation import PendingSegmentation
from saymask.results import Health, ModelInfo, Segmentation
from saymask.windowing import SOFT_TISSUE_HU


class Client:
    """Asks a saymask server about images.

    One client holds one connection, may be used from several threads, and is closed by `close` or
    by leaving its `with` block.

    Args:
        url: host:port of Triton's gRPC endpoint.
        timeout_s: longest time for one call, all its attempts together; each call can set its own.
        retries: further attempts after `Unavailable`, with growing waits, within the time.
        tls: True for an encrypted channel, or a `Tls` naming certificates; None for plain text.
        headers: sent with every call, such as `{"authorization": "Bearer ..."}`.
        max_in_flight: requests that `submit` and `segment_many` keep in flight at once; at least 1.
        max_message_bytes: limit of one message in either direction.

    Raises:
        InvalidArgument: if an argument cannot be meant so.
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
        address, options = self._connection.url, self._connection.options
        self._channel = (
            grpc.insecure_channel(address, options)
            if self._connection.credentials is None
            else grpc.secure_channel(address, self._connection.credentials, options)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._workers = ThreadPoolExecutor(max_in_flight, thread_name_prefix="saymask")

    def segment(
        self,
        image: ImageLike,
        prompt: str,
        *,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> Segmentation:
        """Ask one question about one image.

        Args:
            image: uint8 (H, W), (H, W, 1) or (H, W, 3), RGB; a PIL image (taken as it is: EXIF
                orientation is applied to files only); a `SourceImage`; or a path.
            prompt: the question, in plain words.
            explain: also ask for an explanation, at the same time.
            timeout_s: longest time for the whole call; None takes the client's.

        Raises:
            InvalidArgument: for an image or prompt that cannot be sent, or that the server refuses.
            SaymaskError: of the kind the server answered.
        """
        return self._segment(image, prompt, explain, self._deadline(timeout_s), Cancellation())

    def segment_many(
        self,
        image: ImageLike,
        prompts: Sequence[str],
        *,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> list[Segmentation]:
        """Ask several questions about one image, at the same time.

        Args:
            image: as in `segment`.
            prompts: the questions.
            explain: also ask for an explanation of each.
            timeout_s: longest time for all of them together; None takes the client's.

        Returns:
            One answer per prompt, in their order.

        Raises:
            InvalidArgument: as `segment` raises, and if `prompts` is one str.
            SaymaskError: as soon as one fails; the other requests are then cancelled.
        """
        prompts = check_prompts(prompts)
        pixels = check_image(image)
        pending = [
            self.submit(pixels, prompt, explain=explain, timeout_s=timeout_s) for prompt in prompts
        ]
        try:
            wait([answer._future for answer in pending], return_when=FIRST_EXCEPTION)
            # All are done, or one of those that are raises what ended the wait.
            return [answer.result() for answer in pending if answer.done()]
        finally:
            for answer in pending:
                answer.cancel()

    def submit(
        self,
        image: ImageLike,
        prompt: str,
        *,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> "PendingSegmentation":
        """Ask as `segment` does and return at once; the image and prompt are checked here.

        `timeout_s` counts from this call, the wait for a free place included.
        """
        pixels, deadline, cancellation = (
            check_image(image),
            self._deadline(timeout_s),
            Cancellation(),
        )
        check_prompt(prompt)
        try:
            future = self._workers.submit(
                self._segment, pixels, prompt, explain, deadline, cancellation
            )
        except RuntimeError:  # what the executor raises when it has been shut down meanwhile
            self._connection.check_open()
            raise
        return PendingSegmentation(future, cancellation)

    def find_organs(
        self,
        image: ImageLike,
        prompt: str,
        *,
        least_margin: float | None = None,
        timeout_s: float | None = None,
    ) -> tuple[OrganFinding, ...]:
        """Ask for one or more organs in an axial slice of an abdominal CT.

        Args:
            image: as in `segment`; soft tissue, level 40 and width 400, as 0..255. Files of CT
                are shown so.
            prompt: the question, in plain words; it may name several organs.
            least_margin: 0 to 2: an organ whose similarity exceeds the next by less is
                `uncertain`; None is 0, never.
            timeout_s: longest time for the whole call; None takes the client's.

        Returns:
            One finding per organ asked for, in the order of the prompt.

        Raises:
            InvalidArgument: as `segment` raises, and for another `least_margin`.
            SaymaskError: of the kind the server answered.
        """
        deadline, stopwatch = self._deadline(timeout_s), _protocol.Stopwatch()
        pixels = check_image(image, ct_window=SOFT_TISSUE_HU)
        request = organ_request(
            pixels,
            check_prompt(prompt),
            least_margin,
            max_message_bytes=self._connection.max_message_bytes,
        )
        stopwatch.lap("prepare")
        response = self._call(self._stub.ModelInfer, request, deadline)
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
        """Begin a conversation about one image; nothing is sent before its first question.

        Args:
            image: as in `segment`; files of CT are shown in the soft-tissue window, -160 to 240 HU.
            beta: quality in [0, 1] up to which a mask is corrected.
            judge: `every` judges and corrects each mask as it is made; `referenced` only those
                that a later round refers to, as it does.
            timeout_s: longest time for each of its rounds; None takes the client's.
        """
        state = ConversationState(
            ConversationImage.of(image),
            beta,
            judge,
            retry=self._retry,
            max_message_bytes=self._connection.max_message_bytes,
        )
        return Conversation(self, state, timeout_s)

    def resume_conversation(
        self,
        conversation: str | Path,
        *,
        image: "ImageLike | None" = None,
        timeout_s: float | None = None,
    ) -> Conversation:
        """Go on with a conversation that the server has stored.

        Args:
            conversation: its id; or the file it was saved in, as a `Path` or a name ending in
                .json.
            image: its image, as in `conversation`, for `Conversation.image` and to check that it is
                the same; the server has its own copy.
            timeout_s: longest time for each of its rounds; None takes the client's.

        Raises:
            ConversationLost: if the server does not have it.
            InvalidArgument: if the file is no conversation, or the conversation is about another
                image.
        """
        state = state_to_resume(
            conversation,
            image,
            retry=self._retry,
            max_message_bytes=self._connection.max_message_bytes,
        )
        resumed = Conversation(self, state, timeout_s)
        try:
            resumed._run(state.resume, timeout_s)
        except SaymaskError:
            resumed.close()
            raise
        return resumed

    def replay_conversation(
        self,
        file: str | Path,
        *,
        image: "ImageLike | None" = None,
        timeout_s: float | None = None,
    ) -> Replay[Conversation]:
        """Ask a saved conversation again, as a new one, and compare every answer.

        Args:
            file: where `Conversation.save` wrote it.
            image: the same image; None reads the recorded file again.
            timeout_s: longest time for each round; None takes the client's.

        Returns:
            The new conversation, to go on with and to close, and what differs.

        Raises:
            InvalidArgument: if the file is no conversation, or was about another image.
        """
        recorded = load(file)
        state = ConversationState(
            recorded.read_image() if image is None else recorded.checked(image),
            recorded.beta,
            recorded.judge,
            retry=self._retry,
            max_message_bytes=self._connection.max_message_bytes,
        )
        again = Conversation(self, state, timeout_s)
        differences = again._run(
            lambda _: replay(state, recorded, lambda: self._deadline(timeout_s)), timeout_s
        )
        return Replay(again, differences)

    def explain(
        self, image: ImageLike, prompt: str, *, timeout_s: float | None = None
    ) -> ExplanationStream:
        """Ask for an explanation and return its text piece by piece, as it is written.

        Args:
            image: as in `segment`.
            prompt: the question.
            timeout_s: longest time until the last piece; None takes the client's.
        """
        deadline = self._deadline(timeout_s)
        return self._explain(check_image(image), prompt, deadline, Cancellation())

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Ask how the server is.

        Raises:
            Unavailable: if nothing answers at the address.
        """
        deadline = self._deadline(timeout_s)
        live = self._call(self._stub.ServerLive, service_pb2.ServerLiveRequest(), deadline)
        ready = self._call(self._stub.ServerReady, service_pb2.ServerReadyRequest(), deadline)
        server = self._call(
            self._stub.ServerMetadata, service_pb2.ServerMetadataRequest(), deadline
        )
        pipelines = {
            name: self._call(
                self._stub.ModelReady, service_pb2.ModelReadyRequest(name=name), deadline
            ).ready
            for name in _protocol.PIPELINES
        }
        return Health(f"{server.name} {server.version}", live.live, ready.ready, pipelines)

    def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """List the models the server has loaded, sorted by name and version."""
        deadline, stub = self._deadline(timeout_s), self._stub
        loaded = self._call(
            stub.ModelStatistics, service_pb2.ModelStatisticsRequest(), deadline
        ).model_stats
        models = []
        for name, version in sorted((model.name, model.version) for model in loaded):
            which = {"name": name, "version": version}
            ready = self._call(
                stub.ModelReady, service_pb2.ModelReadyRequest(**which), deadline
            ).ready
            metadata = self._call(
                stub.ModelMetadata, service_pb2.ModelMetadataRequest(**which), deadline
            )
            models.append(_protocol.model_info_of(version, ready, metadata))
        return models

    def close(self) -> None:
        """Cancel what is in flight and close the connection."""
        self._connection.closed = True
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _deadline(self, timeout_s: float | None) -> Deadline:
        self._connection.check_open()
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _segment(
        self,
        image: ImageLike,
        prompt: str,
        explain: bool,
        deadline: Deadline,
        cancellation: Cancellation,
    ) -> Segmentation:
        stopwatch = _protocol.Stopwatch()
        pixels = check_image(image)
        request = _protocol.infer_request(
            _protocol.MASK_PIPELINE,
            pixels,
            check_prompt(prompt),
            max_message_bytes=self._connection.max_message_bytes,
        )
        # The stream runs on the server while the mask is made; its text waits in the channel.
        stream = self._explain(pixels, prompt, deadline, cancellation) if explain else None
        try:
            stopwatch.lap("prepare")
            response = self._call(self._stub.ModelInfer, request, deadline, cancellation)
            stopwatch.lap("round_trip")
            segmentation = _protocol.segmentation_of(response, prompt, pixels.shape)
            stopwatch.lap("decode")
            if stream is not None:
                segmentation = replace(segmentation, explanation="".join(stream))
                stopwatch.lap("explain")
        finally:
            if stream is not None:
                stream.close()
        return replace(segmentation, timings_ms=stopwatch.timings_ms())

    def _explain(
        self, image: ImageLike, prompt: str, deadline: Deadline, cancellation: Cancellation
    ) -> ExplanationStream:
        request = _protocol.explanation_request(
            check_image(image),
            check_prompt(prompt),
            max_message_bytes=self._connection.max_message_bytes,
        )
        return ExplanationStream(
            self._connection, self._stub, request, deadline, self._retry, cancellation
        )

    def _call(
        self,
        method: Any,
        request: Any,
        deadline: Deadline,
        cancellation: Cancellation | None = None,
    ) -> Any:
        """Send one request until it is answered, or no further attempt is due."""
        cancellation = cancellation or Cancellation()
        attempt = 0
        while True:
            try:
                return self._send(method, request, deadline, cancellation)
            except SaymaskError as error:
                delay_s = self._retry.delay_s(attempt, error, deadline)
                if delay_s is None:
                    raise
            cancellation.sleep(delay_s)
            attempt += 1

    def _send(
        self,
        method: Any,
        request: Any,
        deadline: Deadline,
        cancellation: Cancellation | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Send one request once; `metadata` goes with it beside the connection's."""
        request_id = getattr(request, "id", None)
        try:
            rpc = method.future(
                request,
                timeout=deadline.remaining_s(),
                metadata=self._connection.metadata + metadata,
            )
        except ValueError:  # what gRPC raises when the channel has been closed meanwhile
            self._connection.check_open()
            raise
        if cancellation is not None:
            cancellation.watch(rpc)
        try:
            return rpc.result()
        except grpc.FutureCancelledError:
            raise Cancelled("cancelled here", request_id=request_id) from None
        except grpc.RpcError as rpc_error:
            raise self._connection.error_of(rpc_error, request_id) from rpc_error
        finally:
            rpc.cancel()  # Ctrl-C while waiting; does nothing to a finished call
