import asyncio
import contextlib
import threading
import time

import numpy as np
import PIL.Image
import pytest
import saymask
import saymask.readers
from saymask._retry import RetryPolicy

pytestmark = pytest.mark.server

IMAGE = np.zeros((30, 21), np.uint8)
IMAGE[3:9, 2:7] = 200


def run(server_url, question, **settings):
    async def ask():
        async with saymask.aio.Client(server_url, timeout_s=20, **settings) as client:
            return await question(client)

    return asyncio.run(ask())


async def seen_cancelled(client, key, stream=False):
    """How many requests with this key the server saw cancelled, once it saw one or 5 s passed."""
    for _ in range(100):
        if stream:
            count = int([piece async for piece in client.explain(IMAGE, f"seen {key}")][1])
        else:
            count = int((await client.segment(IMAGE, f"seen {key}")).box_xyxy[1])
        if count:
            break
        await asyncio.sleep(0.05)
    return count


def test_it_answers_as_the_blocking_client_does(server_url, client):
    answer = run(server_url, lambda c: c.segment(IMAGE, "bright x", explain=True))
    expected = client.segment(IMAGE, "bright x", explain=True)
    np.testing.assert_array_equal(answer.mask, expected.mask)
    np.testing.assert_array_equal(answer.box_xyxy, expected.box_xyxy)
    assert answer.score == expected.score
    assert answer.explanation == expected.explanation == "bright x "
    assert set(answer.timings_ms) == set(expected.timings_ms)
    assert run(server_url, lambda c: c.health()) == client.health()
    assert run(server_url, lambda c: c.models()) == client.models()


def test_both_clients_offer_the_same_calls():
    import inspect

    for name in ("__init__", "segment", "segment_many", "explain", "health", "models", "close"):
        blocking, twin = getattr(saymask.Client, name), getattr(saymask.aio.Client, name)
        assert [str(p) for p in inspect.signature(blocking).parameters.values()] == [
            str(p) for p in inspect.signature(twin).parameters.values()
        ]


def test_several_questions_are_asked_at_the_same_time(server_url):
    prompts = [f"sleep 0.4 aiomany{index}" for index in range(6)]
    start = time.monotonic()
    answers = run(server_url, lambda c: c.segment_many(IMAGE, prompts))
    assert time.monotonic() - start < 6 * 0.4
    assert [answer.prompt for answer in answers] == prompts


def test_one_failure_among_several_questions_cancels_the_others(server_url):
    async def ask(client):
        with pytest.raises(saymask.NotFound):
            await client.segment_many(IMAGE, ["sleep 10 aioamong", "fail NOT_FOUND 0.5"])
        return await seen_cancelled(client, "aioamong")

    assert run(server_url, ask) == 1


def test_cancelling_the_task_cancels_the_request_on_the_server(server_url):
    async def ask(client):
        task = asyncio.create_task(client.segment(IMAGE, "sleep 10 aiotask"))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await seen_cancelled(client, "aiotask")

    assert run(server_url, ask) == 1


@pytest.mark.parametrize("how", ["aclose", "task"])
def test_leaving_an_explanation_cancels_it_on_the_server(server_url, how):
    async def ask(client):
        if how == "aclose":
            async with contextlib.aclosing(client.explain(IMAGE, "slow aioaclose")) as stream:
                assert await anext(stream) == "tick "
            assert [piece async for piece in stream] == []
        else:

            async def read():
                return [piece async for piece in client.explain(IMAGE, "slow aiotask")]

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read(), 0.3)
        return await seen_cancelled(client, f"aio{how}", stream=True)

    assert run(server_url, ask) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARG", saymask.InvalidArgument),
        ("NOT_FOUND", saymask.NotFound),
        ("UNAVAILABLE", saymask.Unavailable),
        ("CANCELLED", saymask.Cancelled),
        ("INTERNAL", saymask.ServerError),
    ],
)
def test_what_the_server_answers_keeps_its_kind(server_url, code, kind):
    async def ask(client):
        with pytest.raises(kind, match=f"asked for {code}"):
            await client.segment(IMAGE, f"fail {code}")
        with pytest.raises(kind, match=f"asked for {code}"):
            async for _ in client.explain(IMAGE, f"fail {code}"):
                pass

    run(server_url, ask, retries=0)


def test_a_refused_call_is_retried_and_a_begun_explanation_is_not(server_url):
    async def ask(client):
        assert (await client.segment(IMAGE, "unavailable 2 aiotwice")).found
        assert (await client.segment(IMAGE, "seen aiotwice")).box_xyxy[0] == 3
        pieces = [piece async for piece in client.explain(IMAGE, "unavailable 2 aiostream")]
        assert pieces[0] == "unavailable "
        stream, pieces = client.explain(IMAGE, "break 3"), []

        async def read():
            async for piece in stream:
                pieces.append(piece)

        with pytest.raises(saymask.Unavailable, match="broken"):
            await read()
        assert pieces == ["0 ", "1 ", "2 "]

    run(server_url, ask)


def test_a_deadline_ends_call_and_stream(server_url):
    async def ask(client):
        with pytest.raises(saymask.DeadlineExceeded):
            await client.segment(IMAGE, "sleep 5 aiolate", timeout_s=0.3)
        with pytest.raises(saymask.DeadlineExceeded):
            async for _ in client.explain(IMAGE, "slow aiolate", timeout_s=0.3):
                pass

    run(server_url, ask)


@pytest.mark.parametrize("how", ["read", "unread"])
def test_a_stream_that_ran_out_of_time_leaves_no_task(server_url, how):
    async def ask(client):
        stream = client.explain(IMAGE, "slow aioleft", timeout_s=0.3)
        if how == "unread":
            await asyncio.sleep(0.5)
            await stream.aclose()
        else:
            with pytest.raises(saymask.DeadlineExceeded):
                async for _ in stream:
                    pass
        await asyncio.sleep(0.1)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert run(server_url, ask) == set()


def test_a_file_is_read_beside_the_event_loop(server_url, tmp_path, monkeypatch):
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    readers, read = set(), saymask.readers.read_image

    def watched(path, **settings):
        readers.add(threading.current_thread())
        return read(path, **settings)

    monkeypatch.setattr(saymask.readers, "read_image", watched)

    async def ask(client):
        await client.segment(tmp_path / "a.png", "bright")
        await client.segment_many(tmp_path / "a.png", ["bright"])

    run(server_url, ask)
    assert readers
    assert threading.main_thread() not in readers


def test_wrong_input_is_refused_before_anything_is_sent():
    async def ask(client):
        with pytest.raises(saymask.InvalidArgument):
            await client.segment(np.zeros((4, 4)), "liver")
        with pytest.raises(saymask.InvalidArgument, match="got one str"):
            await client.segment_many(IMAGE, "thalamus")
        with pytest.raises(saymask.InvalidArgument):
            client.explain(IMAGE, "")

    run("127.0.0.1:1", ask)


def test_a_closed_client_says_so(server_url):
    async def ask(client):
        await client.close()
        with pytest.raises(saymask.SaymaskError, match="closed"):
            await client.segment(IMAGE, "bright")

    run(server_url, ask)


def test_closing_a_client_tells_other_tasks_that_wait(server_url):
    async def ask(client):
        async def read():
            return [piece async for piece in client.explain(IMAGE, "slow aioclosing")]

        waiting = [client.segment(IMAGE, "sleep 10 aioclosing"), read()]
        tasks = [asyncio.create_task(task) for task in waiting]
        await asyncio.sleep(0.5)
        await client.close()
        return [type(end) for end in await asyncio.gather(*tasks, return_exceptions=True)]

    assert run(server_url, ask) == [saymask.Cancelled, saymask.Cancelled]


def test_a_retry_that_is_due_after_the_client_was_closed_says_so():
    async def ask(client):
        async def read():
            return [piece async for piece in client.explain(IMAGE, "bright")]

        tasks = [asyncio.create_task(task) for task in (client.segment(IMAGE, "bright"), read())]
        await asyncio.sleep(0.3)
        await client.close()
        for task in tasks:
            with pytest.raises(saymask.SaymaskError):
                await task

    run("127.0.0.1:1", ask, retries=1000)


def test_a_stream_closed_while_it_waits_for_its_next_attempt_is_not_asked_again(server_url):
    async def ask(client):
        client._retry = RetryPolicy(retries=1, first_delay_s=5)
        stream = client.explain(IMAGE, "unavailable 9 aiowait")
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.5)
        await stream.aclose()
        with pytest.raises(saymask.Cancelled):
            await asyncio.wait_for(reading, 1)
        return [piece async for piece in client.explain(IMAGE, "seen aiowait")]

    assert run(server_url, ask)[0] == "1 "
