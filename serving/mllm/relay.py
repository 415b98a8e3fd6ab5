"""Lets other models of the same server use the owner's engine, over a Unix socket.

One connection is one request: a frame with the request, frames with replies, end. A frame is its
length (4 bytes, little-endian) and msgpack (`serving.mllm.messages`). Closing the connection
aborts the request. The socket lies in a folder that only this user may enter.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import msgspec

from serving.errors import INVALID_ARG, Unavailable, error_of, kind_of, message_of
from serving.mllm.messages import (
    Completion,
    Failure,
    GenerateRequest,
    Reply,
    TextIncrement,
    decode_reply,
    decode_request,
    encode,
)

MAX_FRAME_BYTES = 1 << 28
"""Longest frame: 16,384 rows of 4,096 float32."""

CONNECT_INTERVAL_S = 0.2
"""Seconds between two attempts to find the owner at load."""

_LENGTH = struct.Struct("<I")


class Engine(Protocol):
    """What can answer a request: the engine itself, or a relay to it."""

    def generate(
        self, request: GenerateRequest
    ) -> AsyncGenerator[TextIncrement | Completion, None]:
        """Any number of increments, then one completion."""


class RelayServer:
    """The owner's side."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; a socket that a killed owner left is replaced."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering: asyncio.Task | None = None
        try:
            if _peer_uid(writer) != os.getuid():
                return
            data = await _read_frame(reader)
            answering = asyncio.create_task(self._answer(data, writer))
            # The peer sends nothing more: whatever ends this read is the end of the connection.
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the peer left before its request was whole
        finally:
            if answering is not None:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
            writer.close()

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = decode_request(data)
        except msgspec.DecodeError as error:
            await _write_frame(writer, Failure(INVALID_ARG, f"malformed request: {error}"))
            return
        try:
            async with aclosing(self._engine.generate(request)) as replies:
                async for reply in replies:
                    await _write_frame(writer, reply)
        except Exception as error:
            await _write_frame(writer, Failure(kind_of(error), message_of(error)))


class RelayClient:
    """The attached model's side; every request connects anew, so an owner may come back."""

    def __init__(self, path: Path, owner: str) -> None:
        self._path = path
        self._owner = owner

    async def wait_for_owner(self, timeout_s: float) -> None:
        """Return when the owner listens.

        Raises:
            TimeoutError: if it does not within `timeout_s`.
        """
        end = time.monotonic() + timeout_s
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(self._path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() >= end:
                    raise TimeoutError(
                        f"model {self._owner!r} opened no engine at {self._path} within "
                        f"{timeout_s:g} s; is it loaded in this server, and did it start?"
                    ) from None
                await asyncio.sleep(CONNECT_INTERVAL_S)
            else:
                writer.close()
                return

    async def generate(
        self, request: GenerateRequest
    ) -> AsyncGenerator[TextIncrement | Completion, None]:
        """As the engine's; closing it closes the connection, which aborts the request."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Unavailable(
                f"model {self._owner!r}, which owns the engine, is not running; try again later"
            ) from error
        try:
            await _write_frame(writer, request)
            while True:
                reply = decode_reply(await _read_frame(reader))
                if isinstance(reply, Failure):
                    raise error_of(reply.kind, reply.message)
                yield reply
                if isinstance(reply, Completion):
                    return
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Unavailable(
                f"model {self._owner!r}, which owns the engine, ended meanwhile; try again later"
            ) from error
        finally:
            writer.close()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise ConnectionError(f"a frame of {length} bytes came, at most {MAX_FRAME_BYTES} are read")
    return await reader.readexactly(length)


async def _write_frame(writer: asyncio.StreamWriter, message: GenerateRequest | Reply) -> None:
    data = encode(message)
    if len(data) > MAX_FRAME_BYTES:
        raise ValueError(
            f"the {'reply' if isinstance(message, Reply) else 'request'} has {len(data)} bytes, "
            f"at most {MAX_FRAME_BYTES} are sent"
        )
    writer.write(_LENGTH.pack(len(data)))
    writer.write(data)
    await writer.drain()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    credentials = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    return struct.unpack("3i", credentials)[1]
