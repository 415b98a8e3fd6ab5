"""What Triton's sequence batching and the pipeline do together, on real servers."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from tests.serving.mediround.client import Chat, read
from tests.serving.mediround.conversations import Asked, masks_of, picture, released_loop

pytestmark = pytest.mark.server

IMAGE = picture()


@pytest.fixture
def hasty(hasty_server):
    time.sleep(2.5)  # whoever was there is given up
    with grpc.insecure_channel(hasty_server.grpc_url) as channel:
        yield lambda name: Chat(channel, name)


def refusal(send, *arguments, **given):
    with pytest.raises(grpc.RpcError) as caught:
        send(*arguments, **given)
    return caught.value.code().name, caught.value.details()


def test_a_conversation_over_the_wire_is_the_released_loop(chat):
    talk = chat("talk")
    answers = [talk.start(IMAGE), talk.send(prompt="segment its left part")]
    answers.append(talk.send(prompt="segment what lies next to instance 1", end=True))
    texts = ["segment the liver", "segment its left part", "segment what lies next to instance 1"]
    asked = [Asked((t,), r) for t, r in zip(texts, [[], [1], [1]], strict=True)]
    expected, _ = released_loop(IMAGE, asked)
    for answer, (masks, *_), one in zip(answers, expected, asked, strict=True):
        np.testing.assert_array_equal(masks_of(answer, IMAGE), masks)
        assert answer["references"][:, 1].tolist() == one.references
    assert answers[1]["resolution"] == "“its” -> round 1, instance 1"


def test_outputs_without_a_value_are_empty_tensors(chat):
    talk = chat("words")
    talk.start(IMAGE)
    answer = talk.send(prompt="Why is it so bright?")
    assert answer["masks"].shape == (0, 24, 3)
    assert answer["references"].shape == (0, 2)
    assert "positions" in answer["answer"]
    assert chat("words").send(action="erase")["answer"] == "Erased."


def test_a_request_needs_a_conversation_and_its_first_one_a_start(chat):
    code, text = refusal(chat("unheard").send, prompt="segment it")
    assert (code, "must specify the START flag" in text) == ("INVALID_ARGUMENT", True)
    for nobody in (None, ""):
        code, text = refusal(chat(nobody).start, IMAGE)
        assert (code, "non-empty correlation ID" in text) == ("INVALID_ARGUMENT", True)
    assert refusal(chat("x" * 129).start, IMAGE)[0] == "UNIMPLEMENTED"
    chat("ended").start(IMAGE, end=True)
    assert "START flag" in refusal(chat("ended").send, prompt="segment it")[1]


def test_a_second_start_of_a_live_conversation_is_refused_and_it_goes_on(chat):
    chat("twice").start(IMAGE)
    code, text = refusal(chat("twice").start, IMAGE)
    assert (code, "is stored already" in text) == ("INVALID_ARGUMENT", True)
    assert chat("twice").send(prompt="segment its tip")["round"] == 2


def test_rounds_of_one_conversation_sent_at_once_are_done_one_after_another(chat):
    talk = chat("eager")
    talk.start(IMAGE)
    calls = [talk.later(prompt=f"segment organ {k}", turn_id=f"t{k}") for k in range(12)]
    rounds = sorted(int(read(call.result())["round"][0]) for call in calls)
    assert rounds == list(range(2, 14))


def test_sixteen_conversations_at_once_do_not_mix(chat):
    texts = ["segment the liver", "segment its left part", "segment instance 1 again"]
    asked = [Asked((t,), r) for t, r in zip(texts, [[], [1], [1]], strict=True)]
    images = [picture(seed, 20 + seed, 30 - seed) for seed in range(16)]

    def converse(seed):
        talk = chat(f"one of sixteen {seed}")
        first = talk.start(images[seed])
        return [first, *(talk.send(prompt=text) for text in texts[1:])]

    with ThreadPoolExecutor(16) as threads:
        for image, answers in zip(images, threads.map(converse, range(16)), strict=True):
            for answer, (masks, *_) in zip(answers, released_loop(image, asked)[0], strict=True):
                np.testing.assert_array_equal(masks_of(answer, image), masks)


def test_conversations_beyond_the_bound_are_refused_at_once_and_not_left_waiting(hasty):
    for name in "abc":
        hasty(name).start(IMAGE)
    started = time.monotonic()
    code, text = refusal(hasty("d").start, IMAGE)
    assert (code, "holds 3 conversations" in text) == ("UNAVAILABLE", True)
    assert time.monotonic() - started < 1
    hasty("a").send(action="recall", end=True)
    assert hasty("d").start(IMAGE)["round"] == 1


def test_a_client_that_vanishes_gives_its_place_back_and_may_come_back_by_resuming(hasty):
    for name in ("left", "behind", "for good"):
        hasty(name).start(IMAGE)
    assert refusal(hasty("next").start, IMAGE)[0] == "UNAVAILABLE"
    time.sleep(2.5)
    assert hasty("next").start(IMAGE)["round"] == 1
    code, text = refusal(hasty("left").send, prompt="segment its tip")
    assert (code, "START flag" in text) == ("INVALID_ARGUMENT", True)
    back = hasty("left").send(start=True, resume=True, prompt="segment its tip")
    assert (back["round"], back["references"].tolist()) == (2, [[1, 1]])


def test_a_client_that_breaks_off_leaves_no_round_and_no_lock(chat):
    talk = chat("broken off")
    talk.start(IMAGE)
    calls = [talk.later(prompt="segment the spleen and the stomach") for _ in range(8)]
    for call in calls:
        call.cancel()
    # What had begun when its client left may still be stored; after a request in turn all is.
    left = talk.go_on(action="recall")["round"]
    assert left <= 9
    assert talk.send(prompt="segment the tip of instance 1")["round"] == left + 1
