"""Requests and responses of the pipeline `mediround`, as the KServe v2 messages that carry them.

The tensors are those of `docs/mediround.md`. When a message is sent, and what follows an error, is
in `_conversation_state`.
"""

import hashlib
import json
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from saymask import _protocol, mask_codec
from saymask._inputs import check_prompt
from saymask.conversation_round import ConversationRound, Instance
from saymask.errors import InvalidArgument

KINDS = ("auto", "mask", "text")
JUDGES = ("every", "referenced")

_ROUND_OUTPUTS = (
    "masks",
    "scores",
    "qualities",
    "corrected",
    "instances",
    "references",
    "revised",
    "round",
    "answer",
    "resolution",
    "cached_tokens",
    "computed_tokens",
)
_RECALL_OUTPUTS = ("masks", "scores", "qualities", "corrected", "instances", "rounds")

Metadata: TypeAlias = tuple[tuple[str, str], ...]
"""Headers of a call."""

_Tensor: TypeAlias = tuple[str, str, tuple[int, ...], bytes]  # name, datatype, shape, content


@dataclass(frozen=True, eq=False)
class Question:
    """What a user asks in one round; checked but for what only the server knows."""

    prompt: str
    reference_rounds: tuple[int, ...] = ()
    reference_instances: tuple[int, ...] = ()
    mask: NDArray[np.bool_] | None = None
    correct_instance: int | None = None
    kind: str = "auto"


@dataclass(frozen=True)
class Turn:
    """One thing that is asked of a conversation, once, however often it has to be sent."""

    tensors: tuple[_Tensor, ...]
    """What it says; two turns that say the same have equal ones."""
    outputs: tuple[str, ...]
    """The outputs it wants."""
    opens: bool = False
    """Whether a conversation may begin with it."""
    takes_image: bool = False
    """Whether it then needs the image; a branch has the one of its source."""
    changes: bool = True
    """Whether it must not be applied twice."""
    turn_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The key by which the server knows it again; sent with what must not be applied twice."""


def check_question(
    prompt: str,
    reference_rounds: int | Sequence[int] | None,
    reference_instances: int | Sequence[int] | None,
    mask: NDArray[np.bool_] | None,
    correct_instance: int | None,
    kind: str,
    size_hw: tuple[int, int],
) -> Question:
    """Return the question if it can be meant so.

    Raises:
        InvalidArgument: for anything else; the message says how to get there.
    """
    if kind not in KINDS:
        raise InvalidArgument(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if mask is not None and (
        not isinstance(mask, np.ndarray) or mask.shape != size_hw or mask.dtype != np.bool_
    ):
        found = f"{mask.shape} {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask)
        raise InvalidArgument(
            f"mask: expected (H, W) bool on the image's grid of {size_hw}, got {found}; "
            "mask > 0 makes numbers so"
        )
    if correct_instance is not None:
        check_number("correct_instance", correct_instance)
        if mask is None:
            raise InvalidArgument(
                f"correct_instance {correct_instance}: the corrected mask is missing; pass mask="
            )
    return Question(
        check_prompt(prompt),
        _numbers("reference_rounds", reference_rounds),
        _numbers("reference_instances", reference_instances),
        None if mask is None else mask.copy(),
        correct_instance,
        kind,
    )


def check_number(name: str, number: int, least: int = 1) -> int:
    """Return a number of a round or an instance if it is one from `least` on."""
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not whole or not least <= number < 2**31:  # they travel as INT32
        raise InvalidArgument(f"{name}: expected a number from {least} on, got {number!r}")
    return int(number)


def check_beta(beta: float) -> float:
    """Return beta if it lies in [0, 1]."""
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 <= beta <= 1:
        raise InvalidArgument(f"beta: expected a number from 0 to 1, got {beta!r}")
    return float(beta)


def check_judge(judge: str) -> str:
    """Return the judge's name if it is one."""
    if judge not in JUDGES:
        raise InvalidArgument(f"judge: expected one of {', '.join(JUDGES)}, got {judge!r}")
    return judge


def ask(question: Question, beta: float, judge: str) -> Turn:
    """Return the turn of one question."""
    tensors = [
        _text("action", "ask"),
        _text("prompt", question.prompt),
        _text("kind", question.kind),
        *_settings(beta, judge),
    ]
    for name, numbers in (
        ("reference_rounds", question.reference_rounds),
        ("reference_instances", question.reference_instances),
    ):
        if numbers:
            tensors.append((name, "INT32", (len(numbers),), np.array(numbers, "<i4").tobytes()))
    if question.mask is not None:
        packed = mask_codec.encode(question.mask[np.newaxis])
        tensors.append(("mask", "UINT8", packed.shape, packed.tobytes()))
    if question.correct_instance is not None:
        tensors.append(_number("mask_instance", question.correct_instance))
    return Turn(tuple(tensors), _ROUND_OUTPUTS, opens=True, takes_image=True)


def undo(to_round: int) -> Turn:
    """Return the turn that keeps the rounds up to `to_round`."""
    return Turn((_text("action", "undo"), _number("round", to_round)), ("round",))


def branch(source_id: str, at_round: int, beta: float, judge: str) -> Turn:
    """Return the turn that begins a conversation as the first rounds of another."""
    tensors = (
        _text("action", "branch"),
        _text("source", source_id),
        _number("round", at_round),
        *_settings(beta, judge),
    )
    return Turn(tensors, ("round",), opens=True)


def recall() -> Turn:
    """Return the turn that reads the stored conversation."""
    return Turn((_text("action", "recall"),), _RECALL_OUTPUTS, changes=False)


def end() -> Turn:
    """Return the turn that says nothing more, for a request that ends the sequence."""
    return Turn((_text("action", "recall"),), ("round",), changes=False)


def erase() -> Turn:
    """Return the turn that removes the stored conversation."""
    return Turn((_text("action", "erase"),), ("round",), changes=False)


def metadata(conversation_id: str) -> Metadata:
    """Return the header by which a balancer can keep a conversation on one server.

    A hash of the id: whoever knows the id can recall the conversation, and headers end up in logs.
    """
    return (("saymask-conversation", hashlib.sha256(conversation_id.encode()).hexdigest()[:16]),)


def request(
    conversation_id: str,
    turn: Turn,
    *,
    image: NDArray[np.uint8] | None,
    start: bool,
    resume: bool,
    end: bool,
    max_message_bytes: int,
) -> Any:
    """Build the message that carries a turn.

    Args:
        conversation_id: the string id of the sequence.
        turn: what is asked.
        image: (H, W, C) uint8 where the conversation may begin with this request.
        start: whether the server is to begin a sequence, as none of this id is known there.
        resume: whether that sequence goes on with a stored conversation.
        end: whether the sequence is over after this request.
        max_message_bytes: limit of the channel.

    Raises:
        InvalidArgument: if the message would not pass the channel's limit.
    """
    tensors = list(turn.tensors)
    if turn.changes:
        tensors.append(_text("turn_id", turn.turn_id))
    if resume:
        tensors.append(("resume", "BOOL", (1,), b"\1"))
    if image is not None:
        tensors.append(("image", "UINT8", image.shape, image.tobytes()))
    message = service_pb2.ModelInferRequest(
        model_name=_protocol.CONVERSATION_PIPELINE,
        id=uuid.uuid4().hex,
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name=name, datatype=datatype, shape=shape
            )
            for name, datatype, shape, _ in tensors
        ],
        outputs=[
            service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name)
            for name in turn.outputs
        ],
        raw_input_contents=[content for _, _, _, content in tensors],
    )
    message.parameters["sequence_id"].string_param = conversation_id
    message.parameters["sequence_start"].bool_param = start
    message.parameters["sequence_end"].bool_param = end
    if message.ByteSize() > max_message_bytes:
        raise InvalidArgument(
            f"image: the request takes {message.ByteSize():,} bytes, more than the channel's limit "
            f"of {max_message_bytes:,}; send a smaller image or pass Client(max_message_bytes=...)"
        )
    return message


def round_of(
    response: Any, question: Question, beta: float, turn_id: str, size_hw: tuple[int, int]
) -> ConversationRound:
    """Read the answer to one question; its timings are the caller's to add.

    Raises:
        ServerError: if the tensors are not those of the protocol.
    """
    references = _protocol._tensor(response, "references", "INT32", "<i4", (None, 2))
    return ConversationRound(
        round=_integer(response, "round"),
        prompt=question.prompt,
        instances=_instances(response, size_hw),
        references=tuple((int(of), int(number)) for of, number in references),
        resolution=_string(response, "resolution"),
        revised=tuple(map(int, _protocol._tensor(response, "revised", "INT32", "<i4", (None,)))),
        answer=_string(response, "answer"),
        cached_tokens=_integer(response, "cached_tokens"),
        computed_tokens=_integer(response, "computed_tokens"),
        kind=question.kind,
        beta=beta,
        drawn_mask=question.mask,
        correct_instance=question.correct_instance,
        turn_id=turn_id,
        request_id=response.id,
    )


@dataclass(frozen=True)
class Recalled:
    """A conversation as the server has stored it."""

    size_hw: tuple[int, int]
    pixels_sha256: str
    """Of its picture, as `saymask.conversation_file.pixels_sha256` has it."""
    rounds: tuple[ConversationRound, ...]
    judge: str | None
    """Of the last round; None without rounds."""


def recalled_of(response: Any) -> Recalled:
    """Read the answer to `recall`.

    Raises:
        ServerError: if the tensors or the text are not those of the protocol.
    """
    text = _string(response, "rounds")
    try:
        stored = json.loads(text)
        height, width = map(int, stored["size_hw"])
        instances = {one.number: one for one in _instances(response, (height, width))}
        return Recalled(
            (height, width),
            str(stored["pixels_sha256"]),
            tuple(_recalled_round(one, instances) for one in stored["rounds"]),
            check_judge(stored["rounds"][-1]["judge"]) if stored["rounds"] else None,
        )
    except (ValueError, LookupError, TypeError) as error:
        raise _protocol._unexpected(
            response, f"rounds: {type(error).__name__}: {error} in {text[:200]!r}"
        ) from error


def _recalled_round(stored: Any, instances: dict[int, Instance]) -> ConversationRound:
    return ConversationRound(
        round=int(stored["round"]),
        prompt=str(stored["prompt"]),
        instances=tuple(instances[number] for number in stored["instances"]),
        references=tuple((int(of), int(number)) for of, number in stored["references"]),
        resolution=str(stored["resolution"]),
        revised=tuple(map(int, stored["revised"])),
        answer=str(stored["answer"]),
        kind=str(stored["kind"]),
        beta=check_beta(round(stored["beta"], 6)),  # it travelled as FP32
        turn_id=str(stored["turn_id"]),
    )


def _instances(response: Any, size_hw: tuple[int, int]) -> tuple[Instance, ...]:
    height, width = size_hw
    numbers = _protocol._tensor(response, "instances", "INT32", "<i4", (None,))
    count = len(numbers)
    packed = _protocol._tensor(
        response, "masks", "UINT8", np.uint8, (count, height, mask_codec.packed_width(width))
    )
    masks = mask_codec.decode(packed, width)
    masks.flags.writeable = False
    scores = _protocol._tensor(response, "scores", "FP32", "<f4", (count,))
    qualities = _protocol._tensor(response, "qualities", "FP32", "<f4", (count,))
    corrected = _protocol._tensor(response, "corrected", "BOOL", np.bool_, (count,))
    return tuple(
        Instance(int(number), mask, float(score), float(quality), bool(changed))
        for number, mask, score, quality, changed in zip(
            numbers, masks, scores, qualities, corrected, strict=True
        )
    )


def _integer(response: Any, name: str) -> int:
    return int(_protocol._tensor(response, name, "INT32", "<i4", (1,))[0])


def _string(response: Any, name: str) -> str:
    texts = _protocol._texts(response, name)
    if len(texts) != 1:
        raise _protocol._unexpected(response, f"{name}: expected one string, got {len(texts)}")
    return texts[0]


def _text(name: str, text: str) -> _Tensor:
    content = text.encode()
    return name, "BYTES", (1,), struct.pack("<I", len(content)) + content


def _number(name: str, number: int) -> _Tensor:
    return name, "INT32", (1,), struct.pack("<i", number)


def _settings(beta: float, judge: str) -> tuple[_Tensor, ...]:
    return ("beta", "FP32", (1,), struct.pack("<f", beta)), _text("judge", judge)


def _numbers(name: str, numbers: int | Sequence[int] | None) -> tuple[int, ...]:
    if numbers is None:
        return ()
    if isinstance(numbers, int | np.integer):
        numbers = [int(numbers)]
    return tuple(check_number(name, number) for number in numbers)
