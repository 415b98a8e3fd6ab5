import asyncio
import json
import threading
import time

import numpy as np
import pytest
import torch

from serving.errors import Unavailable
from serving.mllm.counters import Counters
from serving.mllm.engine import MllmEngine
from serving.mllm.messages import Completion, GenerateRequest
from serving.mllm.model_folder import read_model_folder
from serving.mllm.prompt import assemble_prompt
from serving.mllm.vllm_engine import EngineDied, EngineOutput
from tests.serving.mllm.tiny_mllm import HIDDEN, write_model_folder


class FakeVllm:
    """Generates token 5 for ever, until it is told to go on, or to die."""

    dtype = torch.float32
    max_length = 100

    def __init__(self):
        self.died = False
        self.go_on = asyncio.Event()
        self.aborted = 0
        self.shut_down = False

    async def load_adapters(self):
        pass

    async def generate(
        self, request_id, embeddings, hidden_positions, adapter, max_tokens, temperature
    ):
        try:
            for index in range(max_tokens):
                await self.go_on.wait()
                if self.died:
                    raise EngineDied
                finished = index == max_tokens - 1
                rows = embeddings[hidden_positions] if finished and hidden_positions else None
                yield EngineOutput([5], cached_tokens=1, hidden_rows=rows)
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise

    def shutdown(self):
        self.shut_down = True

    def die(self):
        self.died = True
        self.go_on.set()


class Harness:
    def __init__(self, folder, monkeypatch):
        monkeypatch.setattr("serving.mllm.engine.WATCH_INTERVAL_S", 0.01)
        self.started = []
        self.counters = Counters()
        self.engine = MllmEngine(folder, self.counters, folder.base, self.start)

    def start(self, folder, sockets):
        self.started.append(FakeVllm())
        return self.started[-1]

    @property
    def vllm(self):
        return self.started[-1]

    def ask(self, **fields):
        """One request in a task of its own, answered by its completion or its exception."""
        request = GenerateRequest(token_ids=np.array([1, 3], np.int32), **fields)

        async def last():
            async for reply in self.engine.generate(request):
                completion = reply
            assert isinstance(completion, Completion)
            return completion

        return asyncio.create_task(last())

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mllm")
    write_model_folder(path)
    settings = json.loads((path / "engine.json").read_text())
    (path / "engine.json").write_text(json.dumps({**settings, "max_in_flight": 2}))
    return read_model_folder(path)


@pytest.fixture
def run(folder, monkeypatch):
    def run(scenario):
        async def inner():
            harness = Harness(folder, monkeypatch)
            await harness.engine.open()
            try:
                await scenario(harness)
            finally:
                await harness.engine.close()
            assert harness.vllm.shut_down
            assert harness.counters.in_flight == 0

        asyncio.run(inner())

    return run


def test_hidden_rows_are_normalised(run, folder):
    async def scenario(harness):
        harness.vllm.go_on.set()
        answer = await harness.ask(hidden_positions=np.array([1], np.int32))
        row = folder.tables[""][3].double()
        expected = row / (row.square().mean() + folder.norm_eps).sqrt() * folder.norm_weight
        assert answer.hidden_states == pytest.approx(expected[None].numpy(), rel=1e-5, abs=1e-6)
        assert (answer.cached_tokens, answer.computed_tokens) == (1, 1)

    run(scenario)


def test_no_positions_give_no_rows_and_no_tokens_give_no_text(run):
    async def scenario(harness):
        harness.vllm.go_on.set()
        answer = await harness.ask()
        assert answer.hidden_states.shape == (0, HIDDEN)
        assert answer.text == ""

    run(scenario)


def test_beyond_the_limit_requests_are_refused_at_once(run):
    async def scenario(harness):
        waiting = [harness.ask(), harness.ask()]
        await harness.until(lambda: harness.counters.in_flight == 2)
        with pytest.raises(Unavailable, match="2 requests are in flight"):
            await harness.ask()
        harness.vllm.go_on.set()
        await asyncio.gather(*waiting)
        await harness.ask()
        assert harness.counters.totals()["requests", "unavailable"] == 1
        assert harness.counters.totals()["requests", "ok"] == 3

    run(scenario)


def test_a_cancelled_request_is_aborted_and_leaves(run):
    async def scenario(harness):
        task = harness.ask(max_tokens=50)
        await harness.until(lambda: harness.counters.in_flight == 1)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert harness.counters.in_flight == 0
        assert harness.vllm.aborted == 1
        assert harness.counters.totals()["requests", "cancelled"] == 1

    run(scenario)


def test_a_bad_request_leaves_and_hurts_nobody(run):
    async def scenario(harness):
        harness.vllm.go_on.set()
        with pytest.raises(ValueError, match="max_tokens: got -1"):
            await harness.ask(max_tokens=-1)
        assert harness.counters.in_flight == 0
        await harness.ask()

    run(scenario)


def test_a_dead_engine_fails_its_requests_and_is_started_once_more(run):
    async def scenario(harness):
        first = harness.vllm
        running = harness.ask(max_tokens=5)
        await harness.until(lambda: harness.counters.in_flight == 1)
        first.die()
        with pytest.raises(Unavailable, match="died while it worked"):
            await running
        await harness.until(lambda: len(harness.started) == 2 and harness.engine.ready)
        assert first.shut_down
        assert harness.counters.in_flight == 0
        assert harness.counters.totals()["restarts", ""] == 1
        harness.vllm.go_on.set()
        await harness.ask()

    run(scenario)


def test_requests_are_refused_while_the_engine_restarts(run, monkeypatch):
    async def scenario(harness):
        restarting = asyncio.Event()
        loop = asyncio.get_running_loop()
        start = harness.start

        def slow_start(folder, sockets):
            loop.call_soon_threadsafe(restarting.set)
            time.sleep(0.2)
            return start(folder, sockets)

        monkeypatch.setattr(harness.engine, "_start", slow_start)
        harness.vllm.die()
        await restarting.wait()
        assert not harness.engine.ready
        with pytest.raises(Unavailable, match="is being restarted"):
            await harness.ask()
        await harness.until(lambda: harness.engine.ready)

    run(scenario)


def test_a_second_death_within_the_window_leaves_the_engine_down(run):
    async def scenario(harness):
        harness.vllm.die()
        await harness.until(lambda: len(harness.started) == 2 and harness.engine.ready)
        harness.vllm.die()
        await harness.until(lambda: harness.vllm.shut_down)
        assert not harness.engine.ready
        with pytest.raises(Unavailable, match="stays down; restart the server"):
            await harness.ask()
        assert len(harness.started) == 2

    run(scenario)


def test_an_engine_that_does_not_start_again_stays_down(run, monkeypatch):
    async def scenario(harness):
        def fail(folder, sockets):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(harness.engine, "_start", fail)
        harness.vllm.die()
        await harness.until(lambda: harness.engine._state == "down")
        with pytest.raises(Unavailable, match="or did not start"):
            await harness.ask()

    run(scenario)


def test_closing_while_the_engine_starts_again_ends_the_new_one_too(run, monkeypatch):
    async def scenario(harness):
        restarting = threading.Event()
        start = harness.start

        def slow_start(folder, sockets):
            restarting.set()
            time.sleep(0.2)
            return start(folder, sockets)

        monkeypatch.setattr(harness.engine, "_start", slow_start)
        harness.vllm.die()
        await harness.until(restarting.is_set)
        await harness.engine.close()
        assert len(harness.started) == 2
        assert harness.vllm.shut_down

    run(scenario)


def test_an_engine_that_dies_while_a_prompt_is_put_together_is_unavailable(run, monkeypatch):
    async def scenario(harness):
        go_on = threading.Event()

        def slowly(*arguments):
            go_on.wait(30)
            return assemble_prompt(*arguments)

        monkeypatch.setattr("serving.mllm.engine.assemble_prompt", slowly)
        answer = harness.ask()
        await asyncio.sleep(0.02)
        harness.vllm.die()
        await harness.until(lambda: len(harness.started) == 2 and harness.engine.ready)
        go_on.set()
        with pytest.raises(Unavailable):
            await answer

    run(scenario)
