import contextlib
import dataclasses
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import saymask
from saymask._cancellation import Cancellation
from saymask._retry import Deadline, RetryPolicy
from saymask.pending_segmentation import PendingSegmentation
from tritonclient.grpc import service_pb2

from serving.launcher import launch

pytestmark = pytest.mark.server

FIXTURE_MODELS = Path(__file__).parent / "fixture_models"
IMAGE = np.zeros((30, 21), np.uint8)
IMAGE[3:9, 2:7] = 200


def seen(client, key):
    """How many requests with this key the mask pipeline got, and how many it saw cancelled."""
    return tuple(client.segment(IMAGE, f"seen {key}").box_xyxy[:2])


def eventually(question, answer):
    """Ask until the answer comes: cancellation reaches a server a moment later."""
    end = time.monotonic() + 5
    while (found := question()) != answer and time.monotonic() < end:
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def relay(port, url):
    """Forward a TCP port of this machine to a server."""
    host, server_port = url.split(":")

    def accept():
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection((host, int(server_port)))
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.close()

    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield


def test_a_mask_box_and_score_come_back_on_the_grid_of_the_image(client):
    answer = client.segment(IMAGE, "bright")
    np.testing.assert_array_equal(answer.mask, IMAGE > 127)
    np.testing.assert_array_equal(answer.box_xyxy, np.float32([-1.5, 2.25, 30, 40]))
    assert answer.box_xyxy.dtype == np.float32
    assert answer.score == 0.75
    assert answer.found
    assert (answer.prompt, answer.label, answer.explanation) == ("bright", None, None)
    assert (answer.model_name, answer.model_version) == ("medisee", "1")
    assert answer.timings_ms["total"] >= answer.timings_ms["round_trip"] > 0
    assert "found=True, mask=<30 x 21, 30 px>, box_xyxy=[-1.5, 2.2, 30.0, 40.0]" in repr(answer)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64])
def test_colour_images_of_any_width_keep_their_pixels(client, width):
    image = np.random.default_rng(width).integers(0, 256, (5, width, 3), np.uint8)
    answer = client.segment(image, "bright")
    np.testing.assert_array_equal(answer.mask, image.mean(axis=2) > 127)


def test_an_image_larger_than_grpcs_own_limit_passes(client):
    image = np.zeros((3000, 2000, 3), np.uint8)
    image[0, :] = 255
    np.testing.assert_array_equal(client.segment(image, "bright").mask, image[:, :, 0] > 0)


def test_nothing_found_is_an_answer(client):
    answer = client.segment(IMAGE, "nothing")
    assert not answer.found
    assert answer.score == 0
    assert saymask.box_from_mask(answer.mask) is None


def test_several_questions_are_asked_at_the_same_time_and_answered_in_order(client):
    prompts = [f"sleep 0.4 many{index}" for index in range(6)]
    start = time.monotonic()
    answers = client.segment_many(IMAGE, prompts)
    assert time.monotonic() - start < 6 * 0.4
    assert [answer.prompt for answer in answers] == prompts
    assert client.segment_many(IMAGE, []) == []


def test_one_failure_among_several_questions_is_raised_and_ends_the_others(client):
    with pytest.raises(saymask.NotFound):
        client.segment_many(IMAGE, ["sleep 10 among", "fail NOT_FOUND 0.5"])
    assert eventually(lambda: seen(client, "among"), (1, 1)) == (1, 1)


def test_the_pieces_of_an_explanation_come_as_they_are_sent(client):
    assert list(client.explain(IMAGE, "hell links — heller rechts")) == [
        "hell ",
        "links ",
        "— ",
        "heller ",
        "rechts ",
    ]


def test_the_first_piece_comes_before_the_last_is_made(client):
    start = time.monotonic()
    with client.explain(IMAGE, "slow first") as stream:
        assert next(stream) == "tick "
    assert time.monotonic() - start < 5


def test_an_explanation_can_come_with_the_mask(client):
    answer = client.segment(IMAGE, "bright parts", explain=True)
    assert answer.explanation == "bright parts "
    assert answer.found


@pytest.mark.parametrize("leave", ["close", "with", "let go"])
def test_leaving_an_explanation_cancels_it_on_the_server(client, leave):
    key = f"leave-{leave.replace(' ', '-')}"
    stream = client.explain(IMAGE, f"slow {key}")
    next(stream)
    if leave == "close":
        stream.close()
        assert list(stream) == []
    elif leave == "with":
        with stream:
            pass
    else:
        del stream
    assert eventually(lambda: list(client.explain(IMAGE, f"seen {key}")), ["1 ", "1"]) == [
        "1 ",
        "1",
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARG", saymask.InvalidArgument),
        ("NOT_FOUND", saymask.NotFound),
        ("UNAVAILABLE", saymask.Unavailable),
        ("CANCELLED", saymask.Cancelled),
        ("INTERNAL", saymask.ServerError),
        ("UNKNOWN", saymask.ServerError),
        ("UNSUPPORTED", saymask.ServerError),
        ("ALREADY_EXISTS", saymask.ServerError),
    ],
)
def test_what_the_server_answers_keeps_its_kind_in_calls_and_in_streams(server_url, code, kind):
    with saymask.Client(server_url, retries=0) as client:
        for call in (client.segment, lambda *asked: list(client.explain(*asked))):
            with pytest.raises(kind) as caught:
                call(IMAGE, f"fail {code}")
            assert f"asked for {code}" in str(caught.value)
            assert kind.next_step in str(caught.value)
            assert caught.value.request_id


def test_a_server_error_names_the_request_id_that_is_in_the_servers_log(client):
    with pytest.raises(saymask.ServerError) as caught:
        client.segment(IMAGE, "fail INTERNAL")
    assert caught.value.request_id in str(caught.value)
    assert caught.value.code == "INTERNAL"


def test_a_refused_call_is_retried_until_it_is_answered(client):
    assert client.segment(IMAGE, "unavailable 2 twice").found
    assert seen(client, "twice")[0] == 3


def test_retries_end_after_the_number_given(server_url, client):
    with saymask.Client(server_url, retries=1) as patient, pytest.raises(saymask.Unavailable):
        patient.segment(IMAGE, "unavailable 5 five")
    assert seen(client, "five")[0] == 2


def test_retries_end_with_the_deadline(server_url):
    start = time.monotonic()
    with (
        saymask.Client(server_url, retries=1000) as stubborn,
        pytest.raises((saymask.Unavailable, saymask.DeadlineExceeded)),
    ):
        stubborn.segment(IMAGE, "unavailable 1000 stubborn", timeout_s=1)
    assert time.monotonic() - start < 2


def test_only_unavailable_is_retried(client):
    with pytest.raises(saymask.DeadlineExceeded, match="timeout_s"):
        client.segment(IMAGE, "sleep 5 once", timeout_s=0.3)
    assert eventually(lambda: seen(client, "once"), (1, 1)) == (1, 1)


def test_an_explanation_is_retried_before_its_first_piece_and_never_after(client):
    assert "".join(client.explain(IMAGE, "unavailable 2 stream")) == "unavailable 2 stream "
    assert "".join(client.explain(IMAGE, "seen stream")) == "3 0"
    stream, pieces = client.explain(IMAGE, "break 3"), []
    with pytest.raises(saymask.Unavailable, match="broken"):
        pieces.extend(stream)  # keeps what came before the error
    assert pieces == ["0 ", "1 ", "2 "]
    assert list(stream) == []


def test_an_explanation_ends_with_its_deadline(client):
    with pytest.raises(saymask.DeadlineExceeded):
        list(client.explain(IMAGE, "slow late", timeout_s=0.4))


def test_a_stream_that_ends_before_its_callback_is_set_leaves_no_thread(server_url, monkeypatch):
    with saymask.Client(server_url) as client:
        start = client._stub.ModelStreamInfer

        def ended(*args, **kwargs):
            rpc = start(*args, **kwargs)
            rpc.code()  # waits for the end
            return rpc

        monkeypatch.setattr(client._stub, "ModelStreamInfer", ended)
        before = set(threading.enumerate())
        with pytest.raises(saymask.DeadlineExceeded):
            list(client.explain(IMAGE, "slow nothread", timeout_s=0.3))
        assert eventually(lambda: set(threading.enumerate()) - before, set()) == set()


def test_a_stream_closed_by_another_thread_while_it_is_read_ends_in_our_error(
    server_url, monkeypatch
):
    with saymask.Client(server_url) as client:
        stream = client.explain(IMAGE, "fail NOT_FOUND")
        read = client._connection.error_in

        def closing(*args):
            stream.close()
            return read(*args)

        monkeypatch.setattr(client._connection, "error_in", closing)
        with pytest.raises(saymask.SaymaskError):
            next(stream)


def test_a_stream_closed_while_it_waits_for_its_next_attempt_is_not_asked_again(
    server_url, monkeypatch
):
    with saymask.Client(server_url) as client:
        monkeypatch.setattr(client, "_retry", RetryPolicy(retries=1, first_delay_s=5))
        stream = client.explain(IMAGE, "unavailable 9 wait")
        closing = threading.Timer(0.5, stream.close)
        closing.start()
        start = time.monotonic()
        with pytest.raises(saymask.Cancelled):
            next(stream)
        assert time.monotonic() - start < 1.5
        assert next(client.explain(IMAGE, "seen wait")) == "1 "


def test_a_question_submitted_as_the_client_closes_says_so(server_url, monkeypatch):
    client = saymask.Client(server_url)
    read = client._deadline

    def closing(timeout_s):
        deadline = read(timeout_s)
        client.close()
        return deadline

    monkeypatch.setattr(client, "_deadline", closing)
    with pytest.raises(saymask.SaymaskError, match="closed"):
        client.submit(IMAGE, "bright")


def test_an_answer_that_comes_as_the_wait_ends_leaves_our_kind_of_error():
    future = Future()
    future.set_result(None)
    future.result = lambda timeout_s: (_ for _ in ()).throw(TimeoutError)
    with pytest.raises(saymask.DeadlineExceeded):
        PendingSegmentation(future, Cancellation()).result(0.1)


def test_a_submitted_question_is_answered_later(client):
    pending = client.submit(IMAGE, "sleep 0.2 later")
    assert not pending.done()
    with pytest.raises(saymask.DeadlineExceeded, match="goes on"):
        pending.result(timeout_s=0.01)
    assert pending.result().found
    pending.cancel()
    assert pending.result().found


def test_cancelling_a_submitted_question_cancels_it_on_the_server(client):
    pending = client.submit(IMAGE, "sleep 10 cancelme", explain=True)
    assert eventually(lambda: seen(client, "cancelme")[0], 1) == 1
    pending.cancel()
    with pytest.raises(saymask.Cancelled):
        pending.result()
    assert eventually(lambda: seen(client, "cancelme"), (1, 1)) == (1, 1)


def test_cancelling_ends_the_wait_for_the_next_attempt(server_url):
    with saymask.Client(server_url, retries=1000, timeout_s=60) as client:
        pending = client.submit(IMAGE, "unavailable 1000 waiting")
        time.sleep(0.5)
        start = time.monotonic()
        pending.cancel()
        with pytest.raises(saymask.Cancelled):
            pending.result(timeout_s=5)
        assert time.monotonic() - start < 1


def test_closing_a_client_ends_what_is_in_flight_and_what_comes_later(server_url):
    client = saymask.Client(server_url)
    pending = client.submit(IMAGE, "sleep 10 closing")
    time.sleep(0.2)
    client.close()
    with pytest.raises(saymask.Cancelled):
        pending.result(timeout_s=5)
    with pytest.raises(saymask.SaymaskError, match="closed"):
        client.segment(IMAGE, "bright")


def test_a_retry_that_is_due_after_the_client_was_closed_says_so():
    client = saymask.Client("127.0.0.1:1", retries=1000)
    pending = client.submit(IMAGE, "bright")
    stream = client.explain(IMAGE, "bright")
    time.sleep(0.3)
    client.close()
    with pytest.raises(saymask.SaymaskError):
        pending.result(timeout_s=10)
    with pytest.raises(saymask.SaymaskError):
        next(stream)


def test_one_client_serves_several_threads(client):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(client.segment(IMAGE, "bright").found))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [True] * 8


def test_the_server_tells_how_it_is_and_what_it_has(client):
    health = client.health()
    assert health.ready
    assert health.can_segment
    assert health.pipelines == {
        "medisee": True,
        "medisee_explain": True,
        "organseg": True,
        "mediround": False,
    }
    assert health.server.startswith("saymask-demo ")
    assert "not for clinical use" in health.note
    assert dataclasses.replace(health, server="saymask-full 2.51.0").note == ""
    models = {model.name: model for model in client.models()}
    assert sorted(models) == ["medisee", "medisee_explain", "organseg"]
    medisee = models["medisee"]
    assert (medisee.version, medisee.state) == ("1", "READY")
    assert [tensor.name for tensor in medisee.inputs] == ["image", "prompt"]
    assert {t.name: t.dtype for t in medisee.outputs} == {
        "masks": "UINT8",
        "boxes_xyxy": "FP32",
        "scores": "FP32",
    }


def test_where_nothing_listens_the_error_says_so_and_keeps_to_the_deadline():
    start = time.monotonic()
    with (
        saymask.Client("127.0.0.1:1", timeout_s=5) as client,
        pytest.raises(saymask.Unavailable, match=r"no server answers at 127\.0\.0\.1:1"),
    ):
        client.health()
    assert time.monotonic() - start < 5


def test_tls_against_a_plain_server_says_that_one_answers(server_url):
    with (
        saymask.Client(server_url, tls=True, retries=0) as client,
        pytest.raises(saymask.Unavailable, match=f"a server answers at {server_url}, but not"),
    ):
        client.health()


def test_a_server_that_starts_while_a_call_retries_is_found(server_url):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with saymask.Client(f"127.0.0.1:{port}", retries=20, timeout_s=20) as client:
        pending = client.submit(IMAGE, "bright")
        time.sleep(0.7)
        with relay(port, server_url):
            assert pending.result(timeout_s=15).found


def test_a_protocol_that_the_server_restricts_is_permission_denied_and_not_retried(client):
    start = time.monotonic()
    with pytest.raises(saymask.PermissionDenied, match="restricted"):
        client._call(
            client._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), Deadline(10)
        )
    assert time.monotonic() - start < 0.2


def test_an_unknown_pipeline_is_not_found(tmp_path):
    repository = tmp_path / "models"
    repository.mkdir()
    (repository / "medisee_explain").symlink_to(FIXTURE_MODELS / "medisee_explain")
    with (
        launch(repositories=[repository]) as server,
        saymask.Client(server.grpc_url) as client,
    ):
        assert not client.health().can_segment
        with pytest.raises(saymask.NotFound):
            client.segment(IMAGE, "bright")
