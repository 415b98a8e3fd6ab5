"""Conversations of the client library over two real servers, one Redis and a real HAProxy."""

import contextlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import saymask

from serving.launcher import launch
from serving.sessions.redis_store import RedisStore
from tests.haproxy import running_haproxy
from tests.processes import below
from tests.redis_server import running_redis
from tests.serving.mediround.conftest import OPTIONS, write_repository
from tests.serving.mediround.conversations import Asked, picture, released_loop

pytestmark = [pytest.mark.server, pytest.mark.slow]

IMAGE = picture()
NAMES = ("first", "second")


class Site:
    """Two servers at fixed addresses over one store."""

    def __init__(self, folder, redis_server):
        self.folder = folder
        self.redis_server = redis_server
        # A round lasts half a second, so that it has a middle.
        self.repository = write_repository(
            folder / "models", wait_s=0.5, session_store=redis_server.url
        )
        self.running = {}
        for name in NAMES:
            self.running[name] = launch(repositories=[self.repository], extra_options=OPTIONS)
        self.urls = {name: (one.grpc_url, one.http_url) for name, one in self.running.items()}

    def processes(self, name):
        """The server and its models; not the supervisor above them, which cleans up."""
        return below(self.running[name]._process.pid)

    def kill(self, name):
        for process in self.processes(name):
            process.kill()
        self.running.pop(name).stop()

    def start(self, name):
        grpc_port, http_port = (int(url.partition(":")[2]) for url in self.urls[name])
        self.running[name] = launch(
            repositories=[self.repository],
            extra_options=OPTIONS,
            grpc_port=grpc_port,
            http_port=http_port,
        )

    def stored(self, chat):
        store = RedisStore(self.redis_server.url, ttl_s=600, max_conversation_bytes=1 << 26)
        with contextlib.closing(store):
            return store.load(chat.id)


@pytest.fixture(scope="module")
def _site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with running_redis(folder) as redis_server:
        site = Site(folder, redis_server)
        try:
            yield site
        finally:
            for name in list(site.running):
                site.kill(name)  # stopping would wait for sequences that nobody ends


@pytest.fixture
def site(_site):
    for name in set(NAMES) - set(_site.running):
        _site.start(name)
    return _site


@pytest.fixture
def haproxy(site, tmp_path):
    with running_haproxy(tmp_path / "haproxy", site.urls) as haproxy:
        yield haproxy


@pytest.fixture
def client(haproxy):
    with saymask.Client(haproxy.url, timeout_s=120) as client:
        yield client


def ask(chat):
    """The next question, which only a server that knows the round before can answer."""
    number = len(chat.rounds)
    prompt = f"segment the tip of instance {number}" if number else "segment the liver"
    return chat.ask(prompt)


def served(haproxy):
    return {name: int(row["stot"]) for name, row in haproxy.servers().items()}


def begin(client, haproxy):
    """A conversation with its first round, and the name of the server that it is on."""
    before = served(haproxy)
    chat = client.conversation(IMAGE)
    ask(chat)
    after = served(haproxy)
    (name,) = [name for name in NAMES if after[name] > before[name]]
    return chat, name


def stop_in_the_middle_of_a_round(site, haproxy, name):
    """Stand the server still while it has rounds unanswered; returns its processes."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if int(haproxy.servers()[name]["scur"]) == 0:
            continue
        processes = site.processes(name)
        for process in processes:
            process.suspend()
        time.sleep(0.2)  # what it has sent arrives
        if int(haproxy.servers()[name]["scur"]) > 0:
            return processes
        for process in processes:
            process.resume()
    pytest.fail(f"no round came to server {name}")


def assert_as_undisturbed(chat, client, site):
    """Every round that was asked is there once, in order, with the masks of the released loop."""
    count = len(chat.rounds)
    asked = [Asked((one.prompt,), [n] if n else []) for n, one in enumerate(chat.rounds)]
    expected = [masks for masks, *_ in released_loop(IMAGE, asked)[0]]
    stored = site.stored(chat)
    assert stored.revision == count  # one change for each round, and no other
    assert [each.turn_id for each in stored.rounds] == [one.turn_id for one in chat.rounds]
    assert len({each.turn_id for each in stored.rounds}) == count
    with client.resume_conversation(chat.id) as recalled:
        for rounds in (chat.rounds, recalled.rounds):
            assert [one.round for one in rounds] == list(range(1, count + 1))
            assert [one.prompt for one in rounds] == [one.prompt for one in chat.rounds]
            for one, masks in zip(rounds, expected, strict=True):
                np.testing.assert_array_equal(one.masks, masks)


def test_one_server_after_the_other_is_killed_and_no_conversation_notices(site, haproxy, client):
    chats = {name: [] for name in NAMES}
    while min(map(len, chats.values())) < 2:
        chat, name = begin(client, haproxy)
        chats[name].append(chat)
        assert len(chats["first"] + chats["second"]) < 40
    everyone = chats["first"] + chats["second"]
    with ThreadPoolExecutor(len(everyone)) as threads:
        for victim in NAMES:
            asking = [
                threads.submit(lambda chat: [ask(chat) for _ in range(4)], chat)
                for chat in everyone
            ]
            stop_in_the_middle_of_a_round(site, haproxy, victim)
            site.kill(victim)
            for each in asking:
                assert len(each.result()) == 4
            site.start(victim)
            haproxy.wait_until("UP", victim)
    for chat in everyone:
        assert len(chat.rounds) == 9
        assert_as_undisturbed(chat, client, site)
        chat.close()


def test_while_both_servers_are_down_it_says_so_and_the_conversation_goes_on_later(
    site, haproxy, client
):
    chat, _ = begin(client, haproxy)
    for name in NAMES:
        site.kill(name)
    for _ in range(2):
        with pytest.raises(saymask.Unavailable, match="no server is ready"):
            chat.ask("segment the tip of instance 1", timeout_s=5)
    assert len(chat.rounds) == 1
    site.start("second")
    haproxy.wait_until("UP", "second")
    assert ask(chat).round == 2
    assert ask(chat).round == 3
    assert_as_undisturbed(chat, client, site)


def test_a_server_that_hangs_loses_its_rounds_to_the_other_and_writes_nothing_later(
    site, haproxy, client
):
    chat, name = begin(client, haproxy)
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask, chat)
        stopped = stop_in_the_middle_of_a_round(site, haproxy, name)
        try:
            asking.result()
            ask(chat)
        finally:
            for process in stopped:
                process.resume()
    haproxy.wait_until("UP", name)
    before = served(haproxy)
    assert ask(chat).round == 4
    assert served(haproxy)[name] > before[name]
    assert_as_undisturbed(chat, client, site)


def test_rounds_stay_on_one_server_and_it_may_be_drained_and_come_back(site, haproxy, client):
    chat, name = begin(client, haproxy)
    before = served(haproxy)
    ask(chat)
    ask(chat)
    assert served(haproxy) == before | {name: before[name] + 2}
    haproxy.command(f"set server saymask/{name} state drain")
    ask(chat)
    ask(chat)
    assert served(haproxy)[name] == before[name] + 2
    haproxy.command(f"set server saymask/{name} state ready")
    # It has the sequence still, as it was two rounds ago.
    assert ask(chat).round == 6
    assert served(haproxy)[name] > before[name] + 2
    assert_as_undisturbed(chat, client, site)
    chat.close()


def test_without_the_header_every_round_may_go_to_another_server(site, tmp_path):
    in_turn = {"balance hdr(saymask-conversation)": "balance roundrobin"}
    with (
        running_haproxy(tmp_path / "haproxy", site.urls, in_turn) as haproxy,
        saymask.Client(haproxy.url, timeout_s=120) as client,
        client.conversation(IMAGE) as chat,
    ):
        for _ in range(6):
            ask(chat)
        assert min(served(haproxy).values()) >= 3
        assert_as_undisturbed(chat, client, site)


BREAKS_OFF = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc

class Handler(grpc.GenericRpcHandler):
    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        context.send_initial_metadata(())
        time.sleep(0.5)
        os._exit(0)

server = grpc.server(ThreadPoolExecutor(1))
server.add_generic_rpc_handlers([Handler()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
"""


def test_an_answer_that_breaks_off_is_asked_for_again(site, tmp_path):
    with (
        subprocess.Popen([sys.executable, "-c", BREAKS_OFF], stdout=subprocess.PIPE) as process,
        contextlib.ExitStack() as ending,
    ):
        ending.callback(process.kill)
        port = int(process.stdout.readline())
        _, http_url = site.urls["second"]
        urls = {"first": (f"127.0.0.1:{port}", http_url), "second": site.urls["second"]}
        haproxy = ending.enter_context(running_haproxy(tmp_path / "haproxy", urls))
        client = ending.enter_context(saymask.Client(haproxy.url, timeout_s=120))
        while process.poll() is None:
            chat = ending.enter_context(client.conversation(IMAGE))
            assert ask(chat).round == 1
        assert_as_undisturbed(chat, client, site)
