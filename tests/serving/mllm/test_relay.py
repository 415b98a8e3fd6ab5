import asyncio
import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest

from serving.errors import Unavailable
from serving.mllm.messages import (
    Completion,
    GenerateRequest,
    TextIncrement,
    decode_reply,
    decode_request,
    encode,
)
from serving.mllm.relay import RelayClient, RelayServer
from serving.mllm.runtime_folder import VARIABLE, open_runtime_folder, remove_runtime_folder

REQUEST = GenerateRequest(
    token_ids=np.array([1, -1], np.int32),
    embeddings=np.arange(6, dtype=np.float32).reshape(2, 3),
    hidden_positions=np.array([-1], np.int32),
    adapter="medisee",
    max_tokens=7,
    temperature=0.5,
)


class FakeEngine:
    def __init__(self):
        self.requests = []
        self.closed = asyncio.Event()
        self.error = None
        self.endless = False

    async def generate(self, request):
        self.requests.append(request)
        try:
            if self.error:
                raise self.error
            yield TextIncrement("Größe ")
            while self.endless:
                await asyncio.sleep(0.01)
            yield Completion(
                text="3 µm",
                hidden_states=np.full((1, 3), 0.25, np.float32),
                cached_tokens=2,
                computed_tokens=1,
            )
        finally:
            self.closed.set()


@pytest.fixture
def run(tmp_path):
    def run(scenario):
        async def inner():
            engine = FakeEngine()
            server = RelayServer(engine, tmp_path / "mllm.sock")
            await server.open()
            try:
                await scenario(engine, RelayClient(tmp_path / "mllm.sock", "mllm"))
            finally:
                await server.close()
            assert not (tmp_path / "mllm.sock").exists()

        asyncio.run(inner())

    return run


def test_a_request_and_its_replies_arrive_as_they_were_sent(run):
    async def scenario(engine, client):
        replies = [reply async for reply in client.generate(REQUEST)]
        (request,) = engine.requests
        np.testing.assert_array_equal(request.token_ids, REQUEST.token_ids)
        np.testing.assert_array_equal(request.embeddings, REQUEST.embeddings)
        assert request.embeddings.dtype == np.float32
        assert request.embedding_lengths is None
        assert (request.adapter, request.max_tokens, request.temperature) == ("medisee", 7, 0.5)
        assert replies[0] == TextIncrement("Größe ")
        assert replies[1].text == "3 µm"
        np.testing.assert_array_equal(replies[1].hidden_states, np.full((1, 3), 0.25))
        assert (replies[1].cached_tokens, replies[1].computed_tokens) == (2, 1)

    run(scenario)


@pytest.mark.parametrize("error", [ValueError("17 rows"), Unavailable("busy")])
def test_errors_keep_their_kind_and_text(run, error):
    async def scenario(engine, client):
        engine.error = error
        with pytest.raises(type(error), match=str(error)):
            [reply async for reply in client.generate(REQUEST)]

    run(scenario)


def test_closing_the_generator_aborts_the_request(run):
    async def scenario(engine, client):
        engine.endless = True
        replies = client.generate(REQUEST)
        await anext(replies)
        assert not engine.closed.is_set()
        await replies.aclose()
        await asyncio.wait_for(engine.closed.wait(), 2)

    run(scenario)


def test_an_owner_that_ends_meanwhile_is_unavailable(tmp_path):
    async def scenario():
        async def hang_up(reader, writer):
            await reader.readexactly(4)
            writer.close()

        server = await asyncio.start_unix_server(hang_up, tmp_path / "mllm.sock")
        client = RelayClient(tmp_path / "mllm.sock", "mllm")
        with pytest.raises(Unavailable, match="ended meanwhile"):
            [reply async for reply in client.generate(REQUEST)]
        server.close()
        (tmp_path / "mllm.sock").unlink()
        with pytest.raises(Unavailable, match="'mllm', which owns the engine, is not running"):
            [reply async for reply in client.generate(REQUEST)]

    asyncio.run(scenario())


def test_a_malformed_request_is_refused_and_the_server_lives_on(run, tmp_path):
    async def scenario(engine, client):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "mllm.sock")
        writer.write(b"\x01\x00\x00\x00\x05")
        header = await reader.readexactly(4)
        reply = decode_reply(await reader.readexactly(int.from_bytes(header, "little")))
        assert (reply.kind, reply.message[:17]) == ("INVALID_ARG", "malformed request")
        writer.close()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "mllm.sock")
        writer.write(b"\xff\xff\xff\xff")  # a frame of 4 GiB
        assert await reader.read() == b""
        writer.close()
        assert len([reply async for reply in client.generate(REQUEST)]) == 2

    run(scenario)


def test_an_attached_model_waits_for_its_owner(tmp_path):
    async def scenario():
        client = RelayClient(tmp_path / "mllm.sock", "mllm")
        with pytest.raises(TimeoutError, match=r"opened no engine at .* within 0.1 s"):
            await client.wait_for_owner(0.1)
        waiting = asyncio.create_task(client.wait_for_owner(10))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        server = RelayServer(FakeEngine(), tmp_path / "mllm.sock")
        await server.open()
        await waiting
        await server.close()

    asyncio.run(scenario())


def test_arrays_of_other_types_are_not_sent():
    wrong = GenerateRequest(token_ids=np.array(["pickle"], object))
    with pytest.raises(TypeError, match="array of object cannot be sent"):
        encode(wrong)
    encoded = encode(REQUEST).replace(b"\xa3<f4", b"\xa3|O8")
    with pytest.raises(ValueError, match=r"dtype '\|O8' received"):
        decode_request(encoded)


@pytest.fixture
def short_path():
    """A folder with a name short enough for sockets, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_the_runtime_folder_is_private(short_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(short_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = open_runtime_folder(42)
    assert folder == short_path / f"saymask-{os.getuid()}-42"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert open_runtime_folder(42) == folder
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="mode 0755"):
        open_runtime_folder(42)
    remove_runtime_folder(folder)
    assert not folder.exists()


def test_folders_of_servers_that_were_killed_are_removed(short_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(short_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    stale = short_path / f"saymask-{os.getuid()}-{2**22 + 1}"  # above any process id
    running = short_path / f"saymask-{os.getuid()}-{os.getpid()}"
    other = short_path / "saymask-abc"
    for folder in (stale, running, other):
        folder.mkdir(mode=0o700)
    open_runtime_folder(os.getpid())
    assert not stale.exists()
    assert running.exists()
    assert other.exists()


def test_a_link_in_place_of_the_runtime_folder_is_refused(short_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(short_path / "link"))
    (short_path / "target").mkdir(mode=0o700)
    (short_path / "link").symlink_to(short_path / "target")
    with pytest.raises(PermissionError, match="expected a folder"):
        open_runtime_folder(42)


def test_a_named_runtime_folder_is_used_and_kept(short_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(short_path / "run"))
    folder = open_runtime_folder(42)
    remove_runtime_folder(folder)
    assert folder == short_path / "run"
    assert folder.is_dir()
    monkeypatch.setenv(VARIABLE, str(short_path / ("long" * 20)))
    with pytest.raises(ValueError, match="too long for sockets"):
        open_runtime_folder(42)
