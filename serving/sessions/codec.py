"""Conversations as bytes: the picture once, the rounds anew with each of them.

    4 bytes   "smcP" (picture) or "smcR" (rounds)
    1 byte    version of the layout
    4 bytes   CRC-32 of the rest, big-endian
    rest      zlib of msgpack; an array is (dtype, shape, bytes), little-endian

Nothing here can carry code. Both parts name their conversation and its time of creation, so that
the rounds of one are never shown on the picture of another.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np

from serving.sessions.conversation import Conversation, Round

VERSION = 1
"""Layout written and read; grows when a field is added, removed or changes its meaning."""

_HEAD = struct.Struct(">4sBI")
_DTYPES = ("|u1", "<f4")
_FAST = 1  # zlib's level: most of a mask is empty, and the rest hardly gets smaller


class UnreadableConversation(RuntimeError):  # noqa: N818
    """Stored bytes are damaged, or of another version; asking again does not help."""


@dataclass(frozen=True, eq=False)
class _Picture:
    id: str
    created_s: float
    branched_from: tuple[str, int] | None
    image: np.ndarray


@dataclass(frozen=True, eq=False)
class _Rounds:
    id: str
    created_s: float
    revision: int
    rounds: tuple[Round, ...]


_Part = TypeVar("_Part", _Picture, _Rounds)


def encode_picture(conversation: Conversation) -> bytes:
    """What never changes: picture, time of creation, origin."""
    part = _Picture(
        conversation.id,
        conversation.created_s,
        conversation.branched_from,
        conversation.image,
    )
    return _sealed(b"smcP", part)


def encode_rounds(conversation: Conversation) -> bytes:
    """What changes: the rounds and the revision."""
    part = _Rounds(
        conversation.id, conversation.created_s, conversation.revision, conversation.rounds
    )
    return _sealed(b"smcR", part)


def decode(picture: bytes, rounds: bytes) -> Conversation:
    """The conversation of both parts, each array and number exactly as it was.

    Raises:
        UnreadableConversation: A part is damaged, of an unknown version or of another conversation.
    """
    still = _opened(b"smcP", picture, _picture_decoder)
    moving = _opened(b"smcR", rounds, _rounds_decoder)
    if (still.id, still.created_s) != (moving.id, moving.created_s):
        raise UnreadableConversation(
            f"the stored rounds are of conversation {moving.id!r} ({moving.created_s}), "
            f"the picture is of {still.id!r} ({still.created_s}); erase it and start anew"
        )
    try:
        return Conversation(
            id=still.id,
            image=still.image,
            created_s=still.created_s,
            branched_from=still.branched_from,
            rounds=moving.rounds,
            revision=moving.revision,
        )
    except ValueError as error:
        raise UnreadableConversation(
            f"stored rounds that do not hold together: {error}; erase it and start anew"
        ) from error


def _sealed(kind: bytes, part: _Picture | _Rounds) -> bytes:
    body = zlib.compress(_encoder.encode(part), _FAST)
    return _HEAD.pack(kind, VERSION, zlib.crc32(body)) + body


def _opened(kind: bytes, data: bytes, decoder: "msgspec.msgpack.Decoder[_Part]") -> _Part:
    name = "picture" if kind == b"smcP" else "rounds"
    if len(data) < _HEAD.size:
        raise UnreadableConversation(f"stored {name}: {len(data)} bytes, less than a head has")
    found_kind, version, checksum = _HEAD.unpack_from(data)
    if found_kind != kind:
        raise UnreadableConversation(f"stored {name} begin with {found_kind!r}, expected {kind!r}")
    if version != VERSION:
        raise UnreadableConversation(
            f"stored {name} have layout version {version}, this server reads {VERSION}: continue "
            "on a server of the version that wrote them, or start anew"
        )
    body = memoryview(data)[_HEAD.size :]
    if zlib.crc32(body) != checksum:
        raise UnreadableConversation(
            f"stored {name} are damaged: the checksum of {len(body)} bytes does not fit; "
            "erase the conversation and start anew"
        )
    try:
        return decoder.decode(zlib.decompress(body))
    except (zlib.error, msgspec.DecodeError) as error:
        raise UnreadableConversation(f"stored {name} cannot be read: {error}") from error


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        dtype = value.dtype.newbyteorder("<").str
        return dtype, value.shape, value.astype(dtype, copy=False).tobytes()
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _decode_array(expected: type, value: Any) -> Any:
    if expected is not np.ndarray:
        raise TypeError(f"{expected} cannot be read")
    dtype, shape, data = value
    if dtype not in _DTYPES:
        raise ValueError(f"array of dtype {dtype!r}; expected one of {_DTYPES}")
    return np.frombuffer(data, dtype).reshape(shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_picture_decoder = msgspec.msgpack.Decoder(_Picture, dec_hook=_decode_array)
_rounds_decoder = msgspec.msgpack.Decoder(_Rounds, dec_hook=_decode_array)
