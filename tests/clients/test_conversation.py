import asyncio
import contextlib
import hashlib
import inspect
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import saymask
from google.protobuf import text_format
from saymask import aio_conversation
from saymask.conversation import Conversation, ConversationLost
from tritonclient.grpc import model_config_pb2

from serving.launcher import launch
from tests.processes import below

pytestmark = pytest.mark.server

IMAGE = np.zeros((30, 21), np.uint8)
IMAGE[3:9, 2:8] = 200
BRIGHT = IMAGE > 127
LEFT = BRIGHT & (np.arange(21) < 5)


@pytest.fixture
def chat(talker):
    with talker.conversation(IMAGE) as chat:
        yield chat


def test_rounds_refer_to_masks_of_earlier_rounds(chat):
    first, second = chat.ask("bright"), chat.ask("its left")
    np.testing.assert_array_equal(first.masks, [BRIGHT])
    np.testing.assert_array_equal(second.masks, [LEFT])
    assert (first.round, second.round) == (1, 2)
    assert [one.number for answer in chat.rounds for one in answer.instances] == [1, 2]
    assert (first.references, second.references) == ((), ((1, 1),))
    assert second.resolution == '"its" -> instance 1'
    assert second.answer == "1 outlined."
    assert (second.cached_tokens, second.computed_tokens) == (100, 30)
    assert second.timings_ms["total"] >= second.timings_ms["round_trip"] > 0
    assert chat.rounds == (first, second)
    assert "2: 18 px, q 0.75" in repr(second)


def test_one_round_has_a_mask_for_each_object_or_none_in_words(chat):
    several = chat.ask("bright and nothing and all")
    assert [int(one.mask.sum()) for one in several.instances] == [36, 0, 630]
    assert [one.found for one in several.instances] == [True, False, True]
    words = chat.ask("why is that so")
    assert (words.instances, words.answer, words.found) == ((), "Because.", False)
    assert words.masks.shape[0] == 0
    assert chat.ask("bright", kind="text").instances == ()


def test_references_can_be_given(chat):
    chat.ask("all and bright")
    by_number = chat.ask("left", reference_instances=2)
    assert by_number.references == ((1, 2),)
    np.testing.assert_array_equal(by_number.masks[0], LEFT)
    assert chat.ask("left", reference_rounds=[2, 1]).references == ((2, 3), (1, 1), (1, 2))


def test_a_mask_can_be_drawn_and_an_instance_corrected(chat, conversations):
    chat.ask("bright")
    drawn = np.zeros((30, 21), bool)
    drawn[20:24, 10:14] = True
    answer = chat.ask("left", mask=drawn, correct_instance=1)
    np.testing.assert_array_equal(answer.masks[0], drawn & (np.arange(21) < 12))
    assert answer.references == ((0, 0),)
    drawn[:] = False  # the round keeps what was asked
    assert answer.drawn_mask.sum() == 16
    assert answer.correct_instance == 1


def test_the_image_goes_with_the_first_question_only_and_the_end_is_told(talker, conversations):
    with talker.conversation(IMAGE) as chat:
        chat.ask("bright")
        chat.ask("its left")
    came = conversations.log(came=chat.id)
    assert [(one["start"], one["image"], one["end"]) for one in came] == [
        (True, True, False),
        (False, False, False),
        (False, False, True),
    ]
    with talker.conversation(IMAGE) as silent:
        pass
    assert conversations.log(came=silent.id) == []


def test_beta_is_the_conversations_and_can_be_changed(talker):
    with talker.conversation(IMAGE, beta=0.8) as chat:
        assert chat.ask("all and bright").instances[1].corrected
        chat.beta = 0.2
        assert not chat.ask("all").instances[0].corrected
        assert [one.beta for one in chat.rounds] == [0.8, 0.2]
        with pytest.raises(saymask.InvalidArgument, match="from 0 to 1"):
            chat.beta = 2


def test_undo_forgets_rounds_here_and_on_the_server(chat):
    for prompt in ("bright", "all", "its left"):
        chat.ask(prompt)
    chat.undo(1)
    assert [one.prompt for one in chat.rounds] == ["bright"]
    assert chat.ask("its left").references == ((1, 1),)
    chat.undo(0)
    assert chat.rounds == ()
    assert chat.ask("bright").round == 1
    with pytest.raises(saymask.InvalidArgument, match="no round 5; there are rounds 1 to 1"):
        chat.undo(5)
    chat.undo(0)
    with pytest.raises(saymask.InvalidArgument, match="no round 1; there is none yet, so ask"):
        chat.branch(1)


def test_a_branch_begins_as_the_first_rounds_and_goes_its_own_way(chat):
    chat.ask("bright")
    chat.ask("all")
    with chat.branch(1) as other:
        assert other.id != chat.id
        assert other.rounds == chat.rounds[:1]
        assert other.ask("its left").round == 2
        np.testing.assert_array_equal(other.rounds[1].masks[0], LEFT)
    assert chat.ask("its left").references == ((2, 2),)
    assert [one.prompt for one in chat.recall()] == ["bright", "all", "its left"]


def test_a_conversation_without_rounds_can_be_branched_undone_and_erased(talker):
    with talker.conversation(IMAGE) as chat, chat.branch(0) as other:
        assert other.ask("bright").found
        chat.undo(0)
        assert chat.recall() == ()
        chat.erase()


def test_a_refused_question_leaves_the_conversation_as_it_was(talker):
    with talker.conversation(IMAGE) as chat:
        with pytest.raises(saymask.InvalidArgument, match="there are 0 rounds"):
            chat.ask("left of instance 7 left")
        assert chat.ask("bright").round == 1
        with pytest.raises(saymask.InvalidArgument, match="there are 1 rounds"):
            chat.ask("instance 7 left")
        assert chat.ask("its left").round == 2


def test_a_busy_server_is_asked_again_with_the_same_key(talker, conversations):
    with talker.conversation(IMAGE) as chat:
        for number, prompt in enumerate(("busy 2 bright", "busy 2 its left"), 1):
            assert chat.ask(prompt).round == number
            came = conversations.log(came=chat.id, prompt=prompt)
            assert len({one["turn_id"] for one in came}) == 1
            assert len(came) >= 3
        assert len(conversations.log(applied=chat.id)) == 2


def test_a_question_whose_answer_was_missed_is_taken_once(talker, conversations):
    with talker.conversation(IMAGE) as chat:
        with pytest.raises(saymask.DeadlineExceeded):
            chat.ask("late 0.8 bright", timeout_s=0.4)
        assert chat.rounds == ()
        assert chat.ask("late 0.8 bright").round == 1
        with pytest.raises(saymask.DeadlineExceeded):
            chat.ask("late 0.8 its left", timeout_s=0.4)
        # Something else is asked: the server tells first what became of the one before.
        assert chat.ask("all").round == 3
        assert [one.prompt for one in chat.rounds] == [
            "late 0.8 bright",
            "late 0.8 its left",
            "all",
        ]
        np.testing.assert_array_equal(chat.rounds[1].masks[0], LEFT)
        assert len(conversations.log(applied=chat.id)) == 3


def test_a_first_question_that_never_arrived_is_forgotten(conversation_url):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with saymask.Client(f"127.0.0.1:{port}", retries=1) as client:
        chat = client.conversation(IMAGE)
        with pytest.raises(saymask.Unavailable):
            chat.ask("bright")
        with Relay(conversation_url, port=port):
            assert chat.ask("all").round == 1
            chat.close()


def test_questions_of_several_threads_wait_for_each_other(chat):
    chat.ask("bright")
    threads = [
        threading.Thread(target=chat.ask, args=(f"sleep 0.1 all {n} all",)) for n in range(5)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    with pytest.raises(saymask.DeadlineExceeded, match="wait for each other"):
        chat.ask("all", timeout_s=0.05)
    for thread in threads:
        thread.join(20)
    assert [one.round for one in chat.rounds] == [1, 2, 3, 4, 5, 6]


def test_a_stored_conversation_is_resumed_by_its_id_or_its_file(talker, tmp_path):
    drawn = np.ones((30, 21), bool)
    with talker.conversation(IMAGE, beta=0.7, judge="referenced") as chat:
        chat.ask("bright")
        chat.ask("left", mask=drawn)
        chat.beta = 0.4
        chat.save(tmp_path / "talk.json")
    with pytest.raises(saymask.SaymaskError, match="has ended"):
        chat.ask("all")
    with talker.resume_conversation(chat.id) as resumed:
        assert [one.prompt for one in resumed.rounds] == ["bright", "left"]
        assert (resumed.beta, resumed.judge) == (0.7, "referenced")
        np.testing.assert_array_equal(resumed.rounds[0].masks, [BRIGHT])
        assert resumed.rounds[1].drawn_mask is None
        assert resumed.ask("instance 1 left").round == 3
    with talker.resume_conversation(tmp_path / "talk.json", image=IMAGE) as resumed:
        assert (resumed.beta, resumed.judge) == (0.4, "referenced")
        assert len(resumed.rounds) == 3
        np.testing.assert_array_equal(resumed.rounds[1].drawn_mask, drawn)


def test_a_conversation_is_resumed_about_its_own_image_only(talker, tmp_path):
    with talker.conversation(IMAGE) as chat:
        chat.ask("bright")
    with talker.resume_conversation(chat.id, image=IMAGE[..., np.newaxis]) as resumed:
        assert len(resumed.rounds) == 1
    # Another picture of the same size, of the same bytes in another shape, of another size.
    for other in (255 - IMAGE, np.stack([IMAGE] * 3, axis=-1), IMAGE.reshape(21, 30)):
        with pytest.raises(saymask.InvalidArgument) as caught:
            talker.resume_conversation(chat.id, image=other)
        ours, theirs = (
            hashlib.sha256(str(shape).encode() + pixels.tobytes()).hexdigest()[:12]
            for pixels, shape in (
                (IMAGE, (30, 21, 1)),
                (other, other.shape if other.ndim == 3 else (*other.shape, 1)),
            )
        )
        for text in (
            chat.id,
            f"(30, 21) pixels with SHA-256 {ours}",
            f"{other.shape[:2]} with {theirs}",
        ):
            assert text in str(caught.value)
    # Resumed without its image, it still knows which one it is about.
    with talker.resume_conversation(chat.id) as resumed:
        resumed.save(tmp_path / "talk.json")
    with pytest.raises(saymask.InvalidArgument, match="not the one of the saved conversation"):
        talker.replay_conversation(tmp_path / "talk.json", image=255 - IMAGE)


def test_an_erased_conversation_is_gone_from_the_server(talker, conversations):
    with talker.conversation(IMAGE) as chat:
        chat.ask("bright")
        chat.erase()
        assert len(chat.rounds) == 1
    assert [one["end"] for one in conversations.log(came=chat.id)] == [False, True]
    with pytest.raises(ConversationLost, match=r"chat\.save"):
        talker.resume_conversation(chat.id)


def test_a_server_without_the_pipeline_says_so(client):
    with client.conversation(IMAGE) as chat, pytest.raises(saymask.NotFound) as caught:
        chat.ask("bright")
    assert not isinstance(caught.value, ConversationLost)
    assert "mediround" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"prompt": " "}, "prompt: it is empty"),
        ({"kind": "box"}, "expected one of auto, mask, text, got 'box'"),
        ({"reference_rounds": 0}, "reference_rounds: expected a number from 1 on, got 0"),
        ({"reference_instances": [1, 2**31]}, "expected a number from 1 on, got 2147483648"),
        ({"reference_instances": ["1"]}, "got '1'"),
        ({"correct_instance": 1}, "the corrected mask is missing"),
        ({"mask": np.zeros((30, 21), np.uint8)}, "mask > 0 makes numbers so"),
        ({"mask": np.zeros((3, 3), bool)}, r"grid of \(30, 21\), got \(3, 3\) bool"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_is_sent(talker, conversations, arguments, text):
    with talker.conversation(IMAGE) as chat:
        with pytest.raises(saymask.InvalidArgument, match=text):
            chat.ask(**{"prompt": "bright"} | arguments)
        assert conversations.log(came=chat.id) == []


def test_wrong_settings_are_refused_at_once(talker):
    for settings in ({"beta": -0.1}, {"beta": "x"}, {"judge": "none"}):
        with pytest.raises(saymask.InvalidArgument):
            talker.conversation(IMAGE, **settings)
    with pytest.raises(saymask.InvalidArgument):
        talker.conversation(np.zeros((4, 4)))


class Relay:
    """Forwards each connection to the first server that listens, as a load balancer does."""

    def __init__(self, *urls, port=0):
        self.urls = list(urls)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.url = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.open = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                here, _ = self.listener.accept()
                for url in self.urls:
                    host, port = url.split(":")
                    with contextlib.suppress(OSError):
                        there = socket.create_connection((host, int(port)))
                        self.open += [here, there]
                        for pair in ((here, there), (there, here)):
                            threading.Thread(target=self.pump, args=pair, daemon=True).start()
                        break
                else:
                    here.close()

    def pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.listener.close()
        self.cut()


def kill(server):
    """SIGKILL to the server itself, as a machine that is gone."""
    for process in below(server._process.pid):
        if "tritonserver" in process.name():
            process.kill()


@pytest.fixture
def second(conversations):
    with launch(repositories=[conversations.repository]) as server:
        yield server
        kill(server)  # stopping would wait for sequences that nobody ends


def test_after_a_cut_connection_the_other_server_continues(conversation_url, second, conversations):
    with (
        Relay(conversation_url, second.grpc_url) as relay,
        saymask.Client(relay.url, timeout_s=20) as client,
        client.conversation(IMAGE) as chat,
    ):
        chat.ask("bright")
        relay.urls.reverse()
        relay.cut()
        time.sleep(0.2)
        assert chat.ask("its left").round == 2  # the other server asks for START
        relay.urls.reverse()
        relay.cut()
        assert chat.ask("its left").round == 3
    attempts = conversations.log(came=chat.id, prompt="its left")
    assert all(one["start"] == one["resume"] for one in attempts)
    assert len(conversations.log(applied=chat.id)) == 3


@pytest.mark.parametrize("moment", ["first", "sleep", "late"])
def test_a_killed_server_in_the_middle_of_a_round_loses_nothing(
    conversation_url, second, conversations, moment
):
    prompt = "sleep 1 bright" if moment == "first" else f"{moment} 1 its left"
    with (
        Relay(second.grpc_url, conversation_url) as relay,
        saymask.Client(relay.url, timeout_s=20) as client,
        client.conversation(IMAGE) as chat,
    ):
        if moment != "first":
            chat.ask("bright")
        threading.Timer(0.5, kill, [second]).start()
        answer = chat.ask(prompt)
        np.testing.assert_array_equal(answer.masks, [BRIGHT if moment == "first" else LEFT])
        assert chat.ask("all").round == len(chat.rounds)
    came = conversations.log(came=chat.id, prompt=prompt)
    assert len({one["turn_id"] for one in came}) == 1
    assert len(came) >= 2
    assert len(conversations.log(applied=chat.id)) == len(chat.rounds)


def test_a_conversation_lost_with_its_server_keeps_its_rounds_here(
    conversation_url, second, conversations, tmp_path
):
    with (
        Relay(second.grpc_url, conversation_url) as relay,
        saymask.Client(relay.url, timeout_s=20) as client,
        client.conversation(IMAGE) as chat,
    ):
        chat.ask("bright")
        chat.ask("its left")
        kill(second)
        conversations.forget(chat.id)
        for _ in range(2):
            with pytest.raises(ConversationLost, match=r"lost.*replay_conversation") as caught:
                chat.ask("all")
        assert isinstance(caught.value, saymask.NotFound)
        assert len(chat.rounds) == 2
        chat.save(tmp_path / "talk.json")
        replay = client.replay_conversation(tmp_path / "talk.json", image=IMAGE)
        assert replay.identical
        with replay.conversation as again:
            assert again.ask("its left").round == 3


def test_the_asyncio_twin_does_the_same(conversation_url, tmp_path):
    async def talk():
        async with saymask.aio.Client(conversation_url, timeout_s=20) as client:
            async with client.conversation(IMAGE) as chat:
                answers = await asyncio.gather(*(chat.ask("bright") for _ in range(3)))
                assert sorted(one.round for one in answers) == [1, 2, 3]
                with pytest.raises(saymask.InvalidArgument):
                    await chat.ask("instance 9 left")
                with pytest.raises(saymask.DeadlineExceeded):
                    await chat.ask("late 0.6 all", timeout_s=0.3)
                assert (await chat.ask("late 0.6 all")).round == 4
                asking = asyncio.create_task(chat.ask("sleep 0.5 all"))
                await asyncio.sleep(0.2)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                assert (await chat.ask("busy 1 aio bright")).found
                async with await chat.branch(1) as other:
                    assert (await other.ask("its left")).round == 2
                await chat.undo(2)
                await chat.save(tmp_path / "talk.json")
            async with await client.resume_conversation(tmp_path / "talk.json") as chat:
                assert chat.rounds == (await chat.recall())
                assert len(chat.rounds) == 2
                await chat.erase()
            with pytest.raises(ConversationLost):
                await client.resume_conversation(chat.id)
            replay = await client.replay_conversation(tmp_path / "talk.json", image=IMAGE)
            assert replay.identical
            await replay.conversation.close()

    asyncio.run(talk())


def test_the_asyncio_twin_survives_a_killed_server(conversation_url, second, conversations):
    async def talk():
        with Relay(second.grpc_url, conversation_url) as relay:
            async with (
                saymask.aio.Client(relay.url, timeout_s=20) as client,
                client.conversation(IMAGE) as chat,
            ):
                await chat.ask("bright")
                threading.Timer(0.3, kill, [second]).start()
                assert (await chat.ask("late 1 its left")).round == 2
                assert len(conversations.log(applied=chat.id)) == 2

    asyncio.run(talk())


def test_both_clients_have_the_same_calls():
    def calls(kind, names):
        return {name: list(inspect.signature(getattr(kind, name)).parameters) for name in names}

    names = [name for name in vars(Conversation) if not name.startswith("_")]
    names = [name for name in names if callable(getattr(Conversation, name))]
    assert calls(Conversation, names) == calls(aio_conversation.Conversation, names)
    names = ["conversation", "resume_conversation", "replay_conversation"]
    assert calls(saymask.Client, names) == calls(saymask.aio.Client, names)


def test_the_pipeline_served_here_has_the_tensors_of_the_real_one():
    real = Path(__file__).parents[2] / "ensembles" / "mediround" / "config.pbtxt"
    ours = Path(__file__).parent / "fixture_conversations" / "mediround" / "config.pbtxt"

    def tensors(path, side):
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        return {
            one.name: (one.data_type, len(one.dims), getattr(one, "optional", None))
            for one in getattr(config, side)
        }

    for side in ("input", "output"):
        assert tensors(ours, side) == tensors(real, side)


def test_the_examples_of_the_page_run_as_they_stand(conversation_url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "conversations.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    names = {}
    for block in blocks:
        code = block.replace("localhost:8001", conversation_url)
        exec(compile(code, page.name, "exec"), names)
