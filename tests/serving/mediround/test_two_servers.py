"""Two real servers with one Redis: one is killed in the middle of a round, the other goes on."""

import time

import grpc
import numpy as np
import pytest

from serving.launcher import launch
from tests.processes import below
from tests.redis_server import running_redis
from tests.serving.mediround.client import Chat
from tests.serving.mediround.conftest import OPTIONS, write_repository
from tests.serving.mediround.conversations import Asked, masks_of, picture, released_loop

pytestmark = pytest.mark.server

IMAGE = picture()
TEXTS = ["segment the liver", "segment its left part", "segment the tip of instance 1"]


@pytest.fixture
def redis_server(tmp_path):
    with running_redis(tmp_path) as server:
        yield server


def start(tmp_path, name, redis_server, wait_s):
    root = tmp_path / name
    write_repository(root, wait_s=wait_s, session_store=redis_server.url)
    return launch(repositories=[root], extra_options=OPTIONS)


def test_a_conversation_survives_kill_9_in_the_middle_of_a_round(tmp_path, redis_server):
    slow = start(tmp_path, "slow", redis_server, wait_s=1.0)
    with slow, start(tmp_path, "other", redis_server, wait_s=0.0) as other:
        with grpc.insecure_channel(slow.grpc_url) as channel:
            talk = Chat(channel, "survivor")
            answers = [talk.start(IMAGE, turn_id="t1")]
            stored = redis_server.client().dump("saymask:{survivor}:rounds")
            lost = talk.later(prompt=TEXTS[1], turn_id="t2")
            time.sleep(0.4)
            (triton,) = [each for each in below(slow._process.pid) if "tritonserver" in each.name()]
            triton.kill()
            assert lost.code() == grpc.StatusCode.UNAVAILABLE
            assert redis_server.client().dump("saymask:{survivor}:rounds") == stored
        with grpc.insecure_channel(other.grpc_url) as channel:
            talk = Chat(channel, "survivor")
            again = {"start": True, "resume": True, "image": IMAGE}
            answers.append(talk.send(prompt=TEXTS[1], turn_id="t2", **again))
            # The client did not see that answer, either.
            repeated = talk.send(prompt=TEXTS[1], turn_id="t2", **again)
            np.testing.assert_array_equal(repeated["masks"], answers[1]["masks"])
            answers.append(talk.send(prompt=TEXTS[2], turn_id="t3"))
    asked = [Asked((t,), r) for t, r in zip(TEXTS, [[], [1], [1]], strict=True)]
    for number, (answer, (masks, *_)) in enumerate(
        zip(answers, released_loop(IMAGE, asked)[0], strict=True), start=1
    ):
        assert answer["round"] == number
        np.testing.assert_array_equal(masks_of(answer, IMAGE), masks)


def test_a_redis_that_is_down_is_unavailable_and_the_conversation_goes_on_when_it_is_back(
    tmp_path,
):
    with running_redis(tmp_path, persistent=True) as redis_server:
        server = start(tmp_path, "server", redis_server, wait_s=0.0)
        with server, grpc.insecure_channel(server.grpc_url) as channel:
            talk = Chat(channel, "patient")
            talk.start(IMAGE)
            redis_server.kill()
            for given in ({"prompt": TEXTS[1], "turn_id": "t2"}, {"action": "recall"}):
                with pytest.raises(grpc.RpcError) as caught:
                    talk.send(**given)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                assert "session store at" in caught.value.details()
            redis_server.start()
            assert talk.send(action="recall")["round"] == 1
            assert talk.send(prompt=TEXTS[1], turn_id="t2")["round"] == 2
