"""Callers who give up: their call ends at once, and the server comes to rest and goes on."""

import asyncio
import time

import pytest
import saymask

from tests.integration.probe import picture, wait_until_idle
from tests.processes import engine_held

pytestmark = pytest.mark.server

LONG = "tell me everything about this picture"


@pytest.mark.parametrize("timeout_s", [1e-3, 0.02, 0.1])
def test_a_deadline_that_passes_is_the_deadlines_error_and_the_server_goes_on(
    client, server, good_answer, timeout_s
):
    image = picture(700, 901, 3, seed=int(1e4 * timeout_s))
    with engine_held(server._process.pid), pytest.raises(saymask.DeadlineExceeded) as caught:
        client.segment(image, LONG, timeout_s=timeout_s)
    assert isinstance(caught.value, TimeoutError)
    good_answer()
    wait_until_idle(server)


def test_a_stream_has_a_deadline_too(client, server, good_answer):
    with engine_held(server._process.pid), pytest.raises(saymask.DeadlineExceeded):
        list(client.explain(picture(700, 901, 3, seed=1), LONG, timeout_s=0.05))
    good_answer()
    wait_until_idle(server)


@pytest.mark.parametrize("after_s", [0, 0.02, 0.1])
def test_a_cancelled_handle_says_so_at_once(client, server, good_answer, after_s):
    image = picture(700, 901, 3, seed=int(100 + 100 * after_s))
    with engine_held(server._process.pid):
        pending = client.submit(image, LONG)
        time.sleep(after_s)
        start = time.monotonic()
        pending.cancel()
        with pytest.raises(saymask.Cancelled):
            pending.result()
        assert time.monotonic() - start < 1
    good_answer()
    wait_until_idle(server)


def test_a_cancelled_task_ends_at_once(server, good_answer):
    async def scenario():
        async with saymask.aio.Client(server.grpc_url, timeout_s=120) as client:
            images = [picture(700, 901, 3, seed=200 + i) for i in range(3)]
            with engine_held(server._process.pid):
                tasks = [asyncio.create_task(client.segment(image, LONG)) for image in images]
                await asyncio.sleep(0.1)
                start = time.monotonic()
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert time.monotonic() - start < 1
            assert all(isinstance(end, asyncio.CancelledError) for end in ended)
            # The same connection serves on.
            assert (await client.segment(picture(24, 30), "the liver")).mask.shape == (24, 30)

    asyncio.run(scenario())
    good_answer()
    wait_until_idle(server)


def test_a_stream_closed_early_leaves_nothing_in_the_engine(client, server, good_answer):
    wait_until_idle(server)
    stream = client.explain(picture(24, 30), LONG)
    assert next(stream)
    stream.close()
    assert list(stream) == []
    good_answer()
    wait_until_idle(server)


def test_an_asyncio_stream_closed_early_leaves_nothing_in_the_engine(server, good_answer):
    async def scenario():
        async with saymask.aio.Client(server.grpc_url, timeout_s=120) as client:
            async with client.explain(picture(24, 30), LONG) as stream:
                assert await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    asyncio.run(scenario())
    good_answer()
    wait_until_idle(server)


def test_closing_the_client_ends_its_requests(server, good_answer):
    client = saymask.Client(server.grpc_url, timeout_s=120)
    image = picture(700, 901, 3, seed=300)
    with engine_held(server._process.pid):
        pending = client.submit(image, LONG)
        time.sleep(0.1)
        client.close()
        with pytest.raises(saymask.SaymaskError):
            pending.result(timeout_s=5)
    good_answer()
    wait_until_idle(server)
