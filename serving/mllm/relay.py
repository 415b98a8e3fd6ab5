"""Lets other models of the same server use the owner's engine, over a Unix socket.

One connection is one request: a frame with the request, frames with replies, end. A frame is its
length (4 bytes, little-endian) and msgpack (`serving.mllm.messages`). Closing the connection
aborts the request. The socket lies in a folder that only this user may enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
import tempfile
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

RUNTIME_FOLDER_VARIABLE = "SAYMASK_RUNTIME_DIR"
"""Names a private folder that all models of one server share."""

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


def socket_path(owner: str, server_pid: int) -> Path:
    """Where the model `owner` listens, in a private folder that is made if need be.

    Args:
        owner: Name of the model that owns the engine.
        server_pid: Process id of the server, parent of all its models' processes; it names the
            folder when `SAYMASK_RUNTIME_DIR` does not.

    Raises:
        PermissionError: if the folder belongs to somebody else or lets others in.
        ValueError: if the path is too long for a socket.
    """
    named = os.environ.get(RUNTIME_FOLDER_VARIABLE)
    folder = Path(named or f"{tempfile.gettempdir()}/saymask-{os.getuid()}-{server_pid}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or mode & 0o077:
        raise PermissionError(
            f"{folder}: expected a folder of uid {os.getuid()} with mode 0700, got uid "
            f"{status.st_uid}, mode {mode:04o}; set {RUNTIME_FOLDER_VARIABLE} to a private folder"
        )
    path = folder / f"{owner}.sock"
    if len(os.fsencode(path)) > 107:
        raise ValueError(
            f"{path}: a socket's path has at most 107 bytes; "
            f"set {RUNTIME_FOLDER_VARIABLE} to a shorter one"
        )
    return path


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
        """Stop listening and remove the socket, and its folder when that is empty and ours."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        if RUNTIME_FOLDER_VARIABLE not in os.environ:
            with contextlib.suppress(OSError):
                self._path.parent.rmdir()

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
        except msgspec.ValidationError as error:
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
        raise ValueError(f"the request has {len(data)} bytes, at most {MAX_FRAME_BYTES} are sent")
    writer.write(_LENGTH.pack(len(data)))
    writer.write(data)
    await writer.drain()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    credentials = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    return struct.unpack("3i", credentials)[1]
