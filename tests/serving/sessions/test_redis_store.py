import contextlib
import multiprocessing
import re
import socket
import subprocess
import threading
import time

import numpy as np
import pytest
import redis

from serving.errors import UNAVAILABLE, Unavailable, kind_of
from serving.model_config import ROOT
from serving.sessions.codec import UnreadableConversation
from serving.sessions.conversation import append_round
from serving.sessions.redis_store import RedisStore
from serving.sessions.store import Conflict, ConversationNotFound, DuplicateConversation
from tests.redis_server import free_port, running_redis
from tests.serving.sessions.records import HEIGHT, WIDTH, a_conversation, a_round, plain
from tests.serving.sessions.test_store import save_next, with_one_more

LARGE = 1 << 26


def store_at(url, **options):
    return RedisStore(url, **({"ttl_s": 60.0, "max_conversation_bytes": LARGE} | options))


@pytest.fixture
def own_redis(tmp_path):
    """A persistent server that the test may kill."""
    with running_redis(tmp_path, persistent=True) as server:
        yield server


def test_both_keys_stand_in_one_slot_and_expire_together(redis_server):
    store = store_at(redis_server.url, key_prefix="slots", ttl_s=30.0)
    store.create(a_conversation("é }{:*"))
    with redis_server.client() as client:
        keys = sorted(client.scan_iter("slots:*"))
        tag = b"{%C3%A9%20%7D%7B%3A%2A}"
        assert keys == [b"slots:" + tag + b":picture", b"slots:" + tag + b":rounds"]
        assert all(25_000 < client.pttl(key) <= 30_000 for key in keys)
        written = client.get(keys[0])
        client.pexpire(keys[0], 500)
        save_next(store, store.load("é }{:*"))
        assert all(25_000 < client.pttl(key) <= 30_000 for key in keys)
        assert client.get(keys[0]) == written
        client.config_resetstat()
        save_next(store, store.load("é }{:*"))
        assert "cmdstat_set" not in client.info("commandstats")
        assert store.erase("é }{:*")
        assert not list(client.scan_iter("slots:*"))


def test_where_redis_evicted_one_key_the_conversation_is_gone(redis_server):
    for part in ("picture", "rounds"):
        store = store_at(redis_server.url, key_prefix=f"evicted-{part}")
        store.create(a_conversation(rounds=2))
        with redis_server.client() as client:
            client.delete(f"evicted-{part}:{{c-1}}:{part}")
        with pytest.raises(ConversationNotFound):
            store.load("c-1")
        with pytest.raises(ConversationNotFound):
            store.save(a_conversation(rounds=3), 2)
        fresh = a_conversation(seed=4)
        store.create(fresh)
        assert plain(store.load("c-1")) == plain(fresh)


def test_damage_in_redis_is_named_and_can_be_erased(redis_server):
    store = store_at(redis_server.url, key_prefix="damaged")
    store.create(a_conversation(rounds=1))
    with redis_server.client() as client:
        client.setrange("damaged:{c-1}:picture", 30, b"\xff\xff\xff\xff")
    with pytest.raises(UnreadableConversation, match="picture are damaged"):
        store.load("c-1")
    assert store.erase("c-1")


def test_a_killed_server_is_unavailable_and_has_everything_acknowledged_when_back(own_redis):
    store = store_at(own_redis.url)
    conversation = a_conversation(rounds=1)
    store.create(conversation)
    grown = save_next(store, conversation)
    own_redis.kill()
    actions = {
        "create": lambda: store.create(a_conversation("c-2")),
        "load": lambda: store.load("c-1"),
        "save": lambda: store.save(with_one_more(grown), grown.revision),
        "erase": lambda: store.erase("c-1"),
    }
    for name, act in actions.items():
        with pytest.raises(Unavailable, match=f"127.0.0.1:{own_redis.port}/0.*reached") as down:
            act()
        assert kind_of(down.value) == UNAVAILABLE, name
    own_redis.start()
    assert plain(store.load("c-1")) == plain(grown)  # the same store connects again by itself
    again = save_next(store, grown)
    own_redis.kill()
    own_redis.start()
    assert plain(save_next(store, again)) == plain(store.load("c-1"))  # a write comes first
    with pytest.raises(ConversationNotFound):
        store.load("c-2")


def write_until_lost(url, image, acknowledged):
    """Creates conversations and adds rounds to them as fast as it can, and tells what was done."""
    store = store_at(url)
    for number in range(10_000):
        conversation = a_conversation(f"c-{number}", rounds=1, seed=number, image=image)
        try:
            store.create(conversation)
            acknowledged.send((conversation.id, 1))
            for _ in range(3):
                conversation = save_next(store, conversation, seed=number)
                acknowledged.send((conversation.id, len(conversation.rounds)))
        except Unavailable:
            acknowledged.send(None)
            return


@pytest.mark.parametrize("delay_s", [0.05, 0.2, 0.6])
def test_killed_between_writes_it_holds_what_was_acknowledged_and_nothing_half_written(
    own_redis, delay_s
):
    # Large enough that the log takes it in several pieces.
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 10_000), np.uint8)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    writer = context.Process(target=write_until_lost, args=(own_redis.url, image, sender))
    writer.start()
    sender.close()  # so that the end of the writer is the end of the pipe
    rounds = {}
    try:
        name, count = receiver.recv()  # it has begun
        rounds[name] = count
        time.sleep(delay_s)
        own_redis.kill()
        while (told := receiver.recv()) is not None:
            rounds[told[0]] = told[1]
    finally:
        writer.join(timeout=20)
    own_redis.start()
    store = store_at(own_redis.url)
    for name, count in rounds.items():
        stored = store.load(name)  # decodes: whole, and rounds and picture belong together
        assert count <= len(stored.rounds) <= count + 1
    with own_redis.client() as client:
        keys = list(client.scan_iter("saymask:*"))
        names = {key.decode().split("{")[1].split("}")[0] for key in keys}
    assert len(keys) == 2 * len(names)
    assert len(rounds) <= len(names) <= len(rounds) + 1


@pytest.mark.parametrize("cut", [1, 40, 250])
def test_a_log_cut_off_within_a_write_gives_back_the_state_before_it(own_redis, cut):
    store = store_at(own_redis.url)
    first = a_conversation(rounds=1)
    store.create(first)
    save_next(store, first)
    own_redis.kill()
    (log,) = (own_redis.folder / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(log.read_bytes()[:-cut])  # as when the power fails
    own_redis.start()
    assert plain(store.load("c-1")) == plain(first)
    own_redis.kill()
    log.write_bytes(log.read_bytes()[: log.read_bytes().index(b"created_s")])  # within `create`
    own_redis.start()
    with pytest.raises(ConversationNotFound):
        store.load("c-1")
    with own_redis.client() as client:
        assert client.dbsize() == 0


def test_a_server_that_hangs_is_left_after_the_timeout(own_redis):
    store = store_at(own_redis.url, timeout_s=0.3)
    store.create(a_conversation())
    with own_redis.client() as client:
        client.client_pause(3_000)
    begin = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer in time"):
        store.load("c-1")
    assert time.monotonic() - begin < 1.5
    with own_redis.client() as client:
        client.client_unpause()
    assert store.load("c-1").id == "c-1"


def test_an_answer_that_came_too_late_is_not_taken_for_the_next(own_redis):
    store = store_at(own_redis.url, timeout_s=0.3)
    for name in ("c-1", "c-2"):
        store.create(a_conversation(name))
    with own_redis.client() as client:
        client.client_pause(600)
        with pytest.raises(Unavailable):
            store.load("c-1")
        time.sleep(0.6)
    assert store.load("c-2").id == "c-2"


def test_a_login_that_fails_is_named_without_the_password(tmp_path):
    with running_redis(tmp_path, password="correct-horse") as server:
        good = store_at(server.url)
        good.create(a_conversation())
        assert good.load("c-1").id == "c-1"
        for login in ("", ":wr0ng-secret@", "nobody:wr0ng-secret@"):
            store = store_at(f"redis://{login}127.0.0.1:{server.port}/0")
            with pytest.raises(Unavailable, match=rf"127.0.0.1:{server.port}/0: .*login") as no:
                store.load("c-1")
            assert "wr0ng" not in str(no.value)


def test_a_full_server_refuses_and_keeps_what_it_has(own_redis):
    store = store_at(own_redis.url)
    conversation = a_conversation()
    store.create(conversation)
    with own_redis.client() as client:
        client.config_set("maxmemory", 1)
        for act in (
            lambda: store.create(a_conversation("c-2")),
            lambda: save_next(store, conversation),
        ):
            with pytest.raises(Unavailable, match=r"out of memory: raise its maxmemory"):
                act()
        assert plain(store.load("c-1")) == plain(conversation)
        assert store.erase("c-1")
        assert client.dbsize() == 0


def test_a_replica_is_named(redis_server, tmp_path):
    options = ("--replicaof", "127.0.0.1", str(redis_server.port), "--replica-read-only", "yes")
    with running_redis(tmp_path, *options) as replica, replica.client() as client:
        end = time.monotonic() + 20
        while client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < end
            time.sleep(0.05)
        with pytest.raises(Unavailable, match="a replica, which takes no writes"):
            store_at(replica.url).create(a_conversation())


def test_a_unix_socket_serves_as_well(redis_server):
    store = store_at(f"unix://{redis_server.socket_path}", key_prefix="socket")
    store.create(a_conversation())
    assert store.load("c-1").id == "c-1"


def test_a_lost_connection_is_replaced_for_reading_and_nothing_is_written_twice(redis_server):
    """A relay that cuts the connection after the request has gone through, before the answer."""
    direct = store_at(redis_server.url, key_prefix="cut")
    direct.create(a_conversation())
    cut_next = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(near):
            with near, socket.create_connection(("127.0.0.1", redis_server.port)) as far:
                while request := near.recv(1 << 16):
                    far.sendall(request)
                    answer = far.recv(1 << 16)
                    if b"EVAL" in request and cut_next.is_set():
                        cut_next.clear()
                        return
                    near.sendall(answer)

        def accept():
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(near,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        relayed = store_at(
            f"redis://127.0.0.1:{listener.getsockname()[1]}/0", key_prefix="cut", timeout_s=5.0
        )
        cut_next.set()
        seen = relayed.load("c-1")
        assert not cut_next.is_set()
        cut_next.set()
        with pytest.raises(Unavailable, match="cannot be reached") as lost:
            save_next(relayed, seen)
        assert not isinstance(lost.value, Conflict)
        after = relayed.load("c-1")
        assert len(after.rounds) == 1  # it had arrived; a second sending would have been a Conflict
        cut_next.set()
        with pytest.raises(Unavailable):
            relayed.create(a_conversation("c-2"))
        with pytest.raises(DuplicateConversation):
            relayed.create(a_conversation("c-2"))
        relayed.close()
        listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running_cluster(folder, nodes):
    """Servers that share the slots of one cluster in equal parts; yields them."""
    with contextlib.ExitStack() as stack:
        servers, buses = [], [free_port() for _ in range(nodes)]
        for number, bus in enumerate(buses):
            (folder / f"node{number}").mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            running = running_redis(folder / f"node{number}", *options)
            servers.append(stack.enter_context(running))
        clients = [stack.enter_context(server.client()) for server in servers]
        for number, client in enumerate(clients):
            first, end = (16384 * at // nodes for at in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, buses[0])
        end_s = time.monotonic() + 30
        while any(client.cluster("INFO")["cluster_state"] != "ok" for client in clients):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        yield servers


def test_a_cluster_holds_conversations(tmp_path):
    with running_cluster(tmp_path, nodes=1) as (server,):
        url = server.url.replace("redis://", "redis+cluster://")
        store = store_at(url)
        conversation = a_conversation()
        store.create(conversation)
        grown = save_next(store, conversation)
        with pytest.raises(Conflict):
            save_next(store, conversation)
        assert plain(store.load("c-1")) == plain(grown)
        assert store.erase("c-1")
        server.kill()
        with pytest.raises(Unavailable):
            store.load("c-1")
        with pytest.raises(Unavailable, match=f"127.0.0.1:{server.port}"):
            store_at(url)


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "http://h/0", "redis://user:pa/s3cret@h/0", "redis://:s3cret@h:port/0"],
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match="expected redis://HOST") as refused:
        store_at(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("prefix", ["", "a{b}"])
def test_a_prefix_that_would_break_the_slot_is_refused(prefix):
    with pytest.raises(ValueError, match="without braces"):
        store_at("redis://localhost", key_prefix=prefix)


def test_a_picture_of_many_megabytes_and_many_rounds_go_through(redis_server):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2048, 2048, 3), np.uint8)
    conversation = a_conversation("large", image=image)
    store = store_at(redis_server.url, key_prefix="large")
    store.create(conversation)
    for number in range(1, 6):
        conversation = append_round(conversation, a_round(rng, number, prompt="x" * 100_000))
        store.save(conversation, number - 1)
    assert plain(store.load("large")) == plain(conversation)


PAGE = (ROOT / "docs" / "conversations_store.md").read_text(encoding="utf-8")
ODD_IDS = ["c-1", "é }{:*", "a 'b' \"c\" %d\\"]


def add_documented_users(server, serving=""):
    with server.client() as client:
        for name, rules in re.findall(r"^user (\w+) (on .*)$", PAGE, re.MULTILINE):
            rules = rules.replace("PASSWORD", "s3cret")
            added = serving if name == "serving" else ""
            client.execute_command("ACL", "SETUSER", name, *f"{rules} {added}".split())


def run_documented_erasing(servers):
    (command,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    nodes = " ".join(f"127.0.0.1:{server.port}" for server in servers)
    command, count = re.subn("nodes='[^']*'", f"nodes='{nodes}'", command, count=1)
    assert count == 1
    command = command.replace("PASSWORD", "s3cret")
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split().count("1")


@pytest.mark.parametrize("database", [0, 3])
def test_the_documented_rights_are_enough_and_no_id_can_be_listed(own_redis, database):
    add_documented_users(own_redis)
    url = f"redis://serving:s3cret@127.0.0.1:{own_redis.port}/{database}"
    store = store_at(url)
    for name in ODD_IDS:
        store.create(a_conversation(name))
        grown = save_next(store, store.load(name))
        assert plain(store.load(name)) == plain(grown)
        assert store.erase(name)
    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.scan()


def test_the_documented_commands_erase_all_conversations_and_nothing_else(own_redis):
    add_documented_users(own_redis)
    store = store_at(f"redis://serving:s3cret@127.0.0.1:{own_redis.port}/0")
    for name in ODD_IDS:
        store.create(a_conversation(name))
    with own_redis.client() as client:
        client.set("others", "kept")
        assert run_documented_erasing([own_redis]) == 2 * len(ODD_IDS)
        assert client.keys() == [b"others"]

    def on_disk():
        log = own_redis.folder / "appendonlydir"
        return b"".join(file.read_bytes() for file in log.iterdir())

    end = time.monotonic() + 20
    while b"saymask:" in on_disk():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert b"others" in on_disk()


def test_the_documented_rights_and_erasing_fit_a_cluster(tmp_path):
    (added,) = re.findall(r"In a cluster `serving` needs `([^`]*)`", PAGE)
    with running_cluster(tmp_path, nodes=2) as servers:
        for server in servers:
            add_documented_users(server, serving=added)
        store = store_at(f"redis+cluster://serving:s3cret@127.0.0.1:{servers[0].port}")
        names = [*ODD_IDS, *map(str, range(12))]
        for name in names:
            store.create(a_conversation(name))
            save_next(store, store.load(name))
        store.close()
        sizes = []
        for server in servers:
            with server.client() as client:
                sizes.append(client.dbsize())
        assert sum(sizes) == 2 * len(names)
        assert all(sizes)
        assert run_documented_erasing(servers) == 2 * len(names)
        for server in servers:
            with server.client() as client:
                assert client.dbsize() == 0
