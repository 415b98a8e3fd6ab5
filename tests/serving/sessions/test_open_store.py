import pytest

from serving.sessions.memory_store import MemoryStore
from serving.sessions.open_store import VARIABLE, open_store
from serving.sessions.redis_store import RedisStore
from tests.serving.sessions.records import a_conversation

BOUNDS = {"ttl_s": 60.0, "capacity_bytes": 1 << 24, "max_conversation_bytes": 1 << 20}


@pytest.fixture(autouse=True)
def _without_the_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_memory_unless_something_else_is_named():
    assert isinstance(open_store(**BOUNDS), MemoryStore)


def test_the_variable_comes_before_the_configuration(monkeypatch, redis_server):
    monkeypatch.setenv(VARIABLE, redis_server.url)
    store = open_store("memory", key_prefix="opened", **BOUNDS)
    assert isinstance(store, RedisStore)
    store.create(a_conversation())
    with redis_server.client() as client:
        assert len(list(client.scan_iter("opened:*"))) == 2
    monkeypatch.setenv(VARIABLE, "memory")
    assert isinstance(open_store(redis_server.url, **BOUNDS), MemoryStore)


def test_a_file_holds_the_url(tmp_path, redis_server, monkeypatch):
    path = tmp_path / "url"
    path.write_text(f"{redis_server.url}\n", encoding="utf-8")
    open_store(f"file:{path}", key_prefix="by-file", **BOUNDS).create(a_conversation())
    monkeypatch.setenv(VARIABLE, f"file:{path}")
    assert open_store(key_prefix="by-file", **BOUNDS).load("c-1").id == "c-1"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        open_store(**BOUNDS)


@pytest.mark.parametrize("url", ["redis://:s3cret@h/0", "redis://h/0?password=s3cret"])
def test_a_password_in_the_configuration_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match=VARIABLE) as refused:
        open_store(url, **BOUNDS)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("named", ["", "Memory", "redis"])
def test_what_is_no_store_is_refused(named):
    with pytest.raises(ValueError, match="expected redis://HOST"):
        open_store(named, **BOUNDS)
