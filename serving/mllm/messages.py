"""What goes into and comes out of the engine: one request, its text increments, its end.

The same structs are used in the owner's process and, as msgpack, between processes. Arrays are
sent as (dtype, shape, bytes); nothing here can carry code.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

WIRE_DTYPES = ("<i4", "<f4")


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, and what to return for it."""

    token_ids: np.ndarray
    """(T,) int32. Ids >= 0 index the embedding table; each -1 stands for one embedding segment."""
    embeddings: np.ndarray | None = None
    """(R, E) float32 rows of all segments, in order."""
    embedding_lengths: np.ndarray | None = None
    """(S,) int32 rows per segment; None: all rows are one segment."""
    hidden_positions: np.ndarray | None = None
    """(P,) int32 positions in the expanded prompt; negative ones count from its end."""
    adapter: str = ""
    """Name of the LoRA adapter and of its embedding table; "" is the base model."""
    max_tokens: int = 0
    """Most tokens to generate; 0 only computes the prompt."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""


class TextIncrement(msgspec.Struct, frozen=True, tag=True):
    """Text that came since the previous increment; never empty, never half a character."""

    text: str


class Completion(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The end of a request."""

    text: str
    """Last increment, which may be empty."""
    hidden_states: np.ndarray
    """(P, E) float32 after the final RMSNorm; P = 0 when none were asked for."""
    cached_tokens: int
    """Prompt positions taken from the prefix cache."""
    computed_tokens: int
    """Prompt positions computed for this request."""


class Failure(msgspec.Struct, frozen=True, tag=True):
    """A request that ended in an error; only ever sent between processes."""

    kind: str
    """One of `serving.errors.KINDS`."""
    message: str


Reply = TextIncrement | Completion | Failure


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        dtype = value.dtype.newbyteorder("<").str
        if dtype not in WIRE_DTYPES:
            raise TypeError(f"array of {value.dtype} cannot be sent; expected int32 or float32")
        return (
            dtype,
            value.shape,
            np.ascontiguousarray(value).data.cast("B") if value.size else b"",
        )
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode_array(expected: type, value: Any) -> Any:
    if expected is not np.ndarray:
        raise TypeError(f"{expected} cannot be received")
    dtype, shape, data = value
    if dtype not in WIRE_DTYPES:
        raise ValueError(f"array of dtype {dtype!r} received; expected one of {WIRE_DTYPES}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_request_decoder = msgspec.msgpack.Decoder(GenerateRequest, dec_hook=_decode_array)
_reply_decoder = msgspec.msgpack.Decoder(Reply, dec_hook=_decode_array)


def encode(message: GenerateRequest | Reply) -> bytes:
    """One message as msgpack."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> GenerateRequest:
    """The request in `data`; `msgspec.DecodeError` if it is not one."""
    return _request_decoder.decode(data)


def decode_reply(data: bytes) -> Reply:
    """The reply in `data`; `msgspec.DecodeError` if it is not one."""
    return _reply_decoder.decode(data)
