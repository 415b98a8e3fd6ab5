"""Conversations with the pipeline in place, over small models."""

import json

import numpy as np
import pytest

from serving.errors import Cancelled, Unavailable
from tests.serving.mediround.conversations import (
    Asked,
    masks_of,
    picture,
    released_loop,
    send,
    server,
    store,
)

IMAGE = picture()

DIALOGUE = [
    ("segment the liver", ()),
    ("segment its left part", (1,)),
    ("outline the spleen and the stomach", ()),
    ("segment what lies next to instance 3", (3,)),
    ("based on the output of round 2, segment the tumour", (2,)),
]


def start(pipeline, prompt="segment the liver", name="c", **given):
    return send(pipeline, name, start=True, image=IMAGE, prompt=prompt, **given)


def recall(pipeline, name="c", **given):
    return send(pipeline, name, action="recall", **given)


def same(one, other):
    """Whether two answers are equal but for what they cost."""
    cost = {"cached_tokens", "computed_tokens"}
    for name in set(one) - cost:
        if isinstance(one[name], np.ndarray):
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        else:
            assert one[name] == other[name], name
    return True


@pytest.mark.parametrize("judge", ["every", "referenced"])
@pytest.mark.parametrize("beta", [0.0, 0.55, 1.0])
def test_a_conversation_is_the_released_loop(judge, beta):
    pipeline = server()
    first, *later = [prompt for prompt, _ in DIALOGUE]
    settings = {"judge": judge, "beta": beta}
    answers = [start(pipeline, first, **settings)]
    answers += [send(pipeline, prompt=prompt, **settings) for prompt in later]
    now = recall(pipeline)
    texts = [tuple(each["texts"]) for each in json.loads(now["rounds"])["rounds"]]
    assert [len(each) for each in texts] == [1, 1, 2, 1, 1]
    asked = [Asked(*each) for each in zip(texts, (list(r) for _, r in DIALOGUE), strict=True)]
    expected, standing = released_loop(IMAGE, asked, beta, judge)
    for answer, (masks, qualities, corrected), one in zip(answers, expected, asked, strict=True):
        np.testing.assert_array_equal(masks_of(answer, IMAGE), masks)
        np.testing.assert_allclose(answer["qualities"], qualities, rtol=1e-6)
        assert answer["corrected"].tolist() == corrected.tolist()
        assert answer["references"][:, 1].tolist() == one.references
    assert now["instances"].tolist() == list(standing)
    np.testing.assert_array_equal(masks_of(now, IMAGE), np.array(list(standing.values())))


def test_a_later_round_costs_its_new_tokens_one_crop_for_a_reference_and_one_decode():
    pipeline = server()
    first = start(pipeline)
    counts = dict(pipeline.small.counts)
    second = send(pipeline, prompt="segment its left part")
    third = send(pipeline, prompt="segment the spleen")
    spent = {name: count - counts[name] for name, count in pipeline.small.counts.items()}
    assert counts["medsam_image_embedding"] == 1
    assert spent == {
        "medsam_image_embedding": 0,
        "llava_image_tokens": 1,
        "mllm": 2,
        "mediround_text_projection": 2,
        "mediround_box_encoder": 1,
        "mediround_prompt": 2,
        "explanation_prompt": 0,
        "mediround_jcm": 2,
        "mediround_mask_decoder": 2,
    }
    assert first["cached_tokens"] == 0
    # All that stood before, and of the new turn its own: the answer's four and the question.
    assert second["cached_tokens"] == first["computed_tokens"]
    assert third["cached_tokens"] == second["cached_tokens"] + second["computed_tokens"]


def test_a_low_score_is_corrected_at_once_or_when_a_round_refers_to_it_and_then_once():
    every = start(server(), beta=1.0)
    assert every["corrected"].tolist() == [True]
    assert "Corrected: judged" in every["answer"]
    pipeline = server()
    waiting = start(pipeline, beta=1.0, judge="referenced")
    assert waiting["corrected"].tolist() == [False]
    assert np.isnan(waiting["qualities"]).all()
    judged = pipeline.small.counts["mediround_jcm"]
    second = send(pipeline, prompt="segment its left part", beta=1.0, judge="referenced")
    assert second["revised"].tolist() == [1]
    third = send(pipeline, prompt="segment instance 1 again", beta=1.0, judge="referenced")
    assert third["revised"].tolist() == []
    assert pipeline.small.counts["mediround_jcm"] == judged + 1
    now = recall(pipeline)
    assert now["corrected"].tolist() == [True, False, False]
    np.testing.assert_array_equal(now["masks"][0], every["masks"][0])
    assert (now["masks"][0] != waiting["masks"][0]).any()


def test_what_was_taken_is_said():
    pipeline = server()
    start(pipeline)
    answer = send(pipeline, prompt="segment its left part", beta=0.0)
    assert answer["answer"] == "Outlined, going by instance 1 of round 1 (“segment the liver”)."
    assert answer["resolution"] == "“its” -> round 1, instance 1"
    given = send(pipeline, prompt="segment this", reference_rounds=2, reference_instances=[1, 2])
    assert given["references"].tolist() == [[2, 2], [1, 1]]
    assert given["resolution"] == "as given -> round 2, instance 2; round 1, instance 1"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"prompt": "based on the output of round 3, segment it"}, "no round 3.*rounds? 1"),
        ({"prompt": "segment instance 7"}, "no instance 7.*rounds? 1"),
        ({"reference_rounds": 2}, r"there is no round 2: .* has the rounds 1 \(instance 1\)"),
        ({"reference_rounds": 0}, "there is no round 0"),
        ({"reference_instances": [1, 9]}, r"there is no instance 9: .* rounds 1"),
        ({"prompt": " "}, "prompt: expected a question"),
        ({"kind": "box"}, "kind: expected one of auto, mask, text, got 'box'"),
        ({"judge": "nobody"}, "judge: expected one of every, referenced"),
        ({"beta": 1.5}, "beta: expected a number from 0 to 1, got 1.5"),
        ({"beta": np.nan}, "beta: expected a number from 0 to 1"),
        ({"action": "sing"}, "action: expected one of ask"),
        ({"action": "undo"}, "round: expected the last round to keep"),
        ({"action": "undo", "round": 2}, "there is no round 2"),
        ({"action": "branch", "round": 1, "source": "d"}, "expected the start of a sequence"),
        ({"mask": np.ones((24, 22), bool)[:, :9]}, r"mask: expected \(1, 24, 3\)"),
        ({"mask": np.zeros((24, 21), bool)}, "at least one pixel"),
        ({"mask": np.ones((24, 21), bool), "mask_instance": 2}, "there is no instance 2"),
        ({"mask_instance": 1}, "expected the mask that corrects it"),
        ({"mask": np.ones((24, 21), bool), "kind": "text"}, "kind 'text'"),
        ({"image": picture(1)}, "is about another picture"),
        ({"image": IMAGE[..., :2]}, "expected 1 .grey. or 3"),
        ({"prompt": None}, "prompt: missing"),
        ({"prompt": "outline a, b, c, d, e, f, g, h and i"}, "at most 8 objects, got 9"),
    ],
)
def test_what_cannot_be_served_is_refused_and_changes_nothing(given, reason):
    pipeline = server()
    start(pipeline)
    before = recall(pipeline)
    with pytest.raises(ValueError, match=reason):
        send(pipeline, **({"prompt": "segment it"} | given))
    assert same(recall(pipeline), before)


def test_an_earlier_round_answered_in_words_cannot_be_referred_to():
    pipeline = server()
    start(pipeline)
    send(pipeline, prompt="why is that?", kind="text")
    with pytest.raises(ValueError, match=r"round 2 has no mask: .* 2 \(no mask\)"):
        send(pipeline, prompt="segment it", reference_rounds=2)


def test_a_plain_question_is_answered_by_the_base_model_and_stays_out_of_the_prompt():
    pipeline, plain = server(), server()
    for one in (pipeline, plain):
        start(one)
    words = send(pipeline, prompt="Why is the liver so bright?")
    assert "no adapter" in words["answer"]
    assert words["masks"].shape == (0, 24, 3)
    assert words["round"] == 2
    after = send(pipeline, prompt="segment its left part")
    without = send(plain, prompt="segment its left part")
    np.testing.assert_array_equal(after["masks"], without["masks"])
    assert after["round"] == 3
    assert send(pipeline, prompt="Why is it bright?", kind="mask")["instances"].tolist() == [3]


def test_a_drawn_mask_is_a_reference_and_no_instance():
    pipeline = server()
    start(pipeline)
    drawn = np.zeros((24, 21), bool)
    drawn[3:9, 4:20] = True
    answer = send(pipeline, prompt="segment what touches this", mask=drawn)
    assert answer["references"].tolist() == [[0, 0]]
    assert answer["instances"].tolist() == [2]
    assert "the mask you drew" in answer["answer"]
    text = ("segment what touches this",)
    expected, _ = released_loop(IMAGE, [Asked(("segment the liver",)), Asked(text, [drawn])])
    np.testing.assert_array_equal(masks_of(answer, IMAGE), expected[1][0])


def test_a_corrected_mask_takes_the_place_of_its_instance_for_later_rounds():
    pipeline = server()
    first = start(pipeline)
    drawn = np.zeros((24, 21), bool)
    drawn[10:20, 0:20] = True
    answer = send(pipeline, mask=drawn, mask_instance=1)
    assert (answer["round"], answer["instances"], answer["scores"]) == (1, 1, 1)
    assert not answer["references"].size
    referring = send(pipeline, prompt="segment its left part", beta=1.0, judge="referenced")
    assert referring["revised"].size == 0, "nobody judges a mask of the user"
    twice = server()
    start(twice)
    at_once = send(twice, prompt="segment its left part", mask=drawn, mask_instance=1, beta=0.0)
    np.testing.assert_array_equal(at_once["references"], referring["references"])
    np.testing.assert_array_equal(at_once["masks"], referring["masks"])
    for one in (pipeline, twice):
        np.testing.assert_array_equal(masks_of(recall(one), IMAGE)[0], drawn)
    # Before the round in which it was corrected at once, it is as it was.
    send(twice, action="undo", round=1)
    np.testing.assert_array_equal(recall(twice)["masks"][0], first["masks"][0])


def test_undo_and_branch_give_back_the_state_of_that_round():
    pipeline = server()
    start(pipeline)
    second = send(pipeline, prompt="segment its left part")
    third = send(pipeline, prompt="segment its right part")
    left = send(pipeline, name="d", start=True, action="branch", source="c", round=1)
    assert left["instances"].tolist() == [1]
    assert json.loads(left["rounds"])["branched_from"] == ["c", 1]
    assert same(send(pipeline, name="d", prompt="segment its left part"), second)
    undone = send(pipeline, action="undo", round=2)
    assert (undone["round"], undone["instances"].tolist()) == (2, [1, 2])
    again = send(pipeline, prompt="segment its right part")
    assert same(again, third)
    assert send(pipeline, action="undo", round=0)["round"] == 0
    assert send(pipeline, prompt="segment the liver")["instances"].tolist() == [1]
    assert len(json.loads(recall(pipeline, "d")["rounds"])["rounds"]) == 2


def test_a_request_that_comes_again_is_not_applied_again():
    shared = store()
    one, other = server(shared), server(shared)
    first = start(one, turn_id="t1")
    # On the same server, on another, as a start with and without resume, with another prompt.
    assert same(start(one, turn_id="t1"), first)
    assert same(start(other, turn_id="t1", resume=True), first)
    assert same(send(other, turn_id="t1", prompt="something else"), first)
    second = send(one, prompt="segment its left part", turn_id="t2")
    again = send(other, start=True, resume=True, prompt="segment its left part", turn_id="t2")
    assert same(again, second)
    assert again["computed_tokens"] == 0
    for _ in range(2):
        assert send(one, action="undo", round=1, turn_id="t3")["round"] == 1
        branch = send(one, "d", start=True, action="branch", source="c", round=1, turn_id="t4")
        assert branch["round"] == 1
    assert (
        send(other, "d", start=True, resume=True, action="branch", source="c", round=1)["round"]
        == 1
    )
    for _ in range(2):
        assert send(one, action="erase")["answer"] == "Erased."


def test_a_start_is_for_a_new_id_unless_it_resumes():
    shared = store()
    one, other = server(shared), server(shared)
    with pytest.raises(LookupError, match="is not stored: it has expired"):
        send(one, start=True, resume=True, prompt="segment it")
    with pytest.raises(ValueError, match="image: missing; a conversation starts with a picture"):
        send(one, start=True, prompt="segment it")
    start(one)
    for pipeline in (one, other):
        with pytest.raises(ValueError, match="is stored already: resume it"):
            start(pipeline, turn_id="another")
        with pytest.raises(ValueError, match="is stored already"):
            send(pipeline, start=True, action="branch", source="e", round=0)
        for action in ("recall", "undo"):
            with pytest.raises(ValueError, match="expected resume"):
                send(pipeline, start=True, action=action, round=1)
    assert send(other, start=True, resume=True, prompt="segment its tip")["round"] == 2
    with pytest.raises(LookupError, match="'e' is not stored"):
        send(one, "d", start=True, action="branch", source="e", round=0)


def test_a_server_that_missed_rounds_reads_them_before_it_refuses_what_refers_to_them():
    shared = store()
    one, other = server(shared), server(shared)
    start(one)
    send(other, start=True, resume=True, prompt="segment its left part")
    third = send(one, prompt="segment instance 2 again")
    assert third["references"].tolist() == [[2, 2]]
    assert third["round"].tolist() == [3]
    with pytest.raises(ValueError, match="instance 9"):
        send(one, prompt="segment instance 9 again")


def test_two_servers_that_change_one_conversation_do_not_lose_a_round():
    shared = store()
    one, other = server(shared), server(shared)
    start(one)
    send(other, start=True, resume=True, prompt="segment its left part", turn_id="t2")
    with pytest.raises(Unavailable, match="changed elsewhere"):
        send(one, prompt="segment the spleen", turn_id="t3")
    third = send(one, prompt="segment the spleen", turn_id="t3")
    assert third["round"] == 3
    # What the other server knows is old; neither a look nor an undo goes by it.
    assert send(other, action="undo", round=2)["round"] == 2
    assert recall(one)["round"] == 2


@pytest.mark.parametrize("failing", ["mllm", "mediround_mask_decoder", "mediround_jcm"])
def test_a_round_that_fails_leaves_the_conversation_as_it_was(failing):
    pipeline = server()
    start(pipeline)
    before = recall(pipeline)
    pipeline.small.fail[failing] = Unavailable("full")
    with pytest.raises(Unavailable):
        send(pipeline, prompt="segment its left part", turn_id="t")
    assert same(recall(pipeline), before)
    del pipeline.small.fail[failing]
    assert send(pipeline, prompt="segment its left part", turn_id="t")["round"] == 2


def test_a_client_that_gives_up_changes_nothing_whenever_it_does():
    pipeline = server()
    start(pipeline)
    before = recall(pipeline)
    for asked_before in range(4):
        answers = iter([False] * asked_before)
        gone = lambda answers=answers: next(answers, True)  # noqa: E731
        try:
            send(pipeline, prompt="segment its left part", is_cancelled=gone)
        except Cancelled:
            assert same(recall(pipeline), before)
        else:
            break
    assert asked_before == 3
    assert send(pipeline, prompt="segment the spleen")["round"] == 3


class Down:
    """A store that cannot be reached while `broken` names the method."""

    def __init__(self, inner):
        self.inner, self.broken = inner, ()

    def __getattr__(self, name):
        if name in self.broken:
            raise Unavailable(f"session store: {name} failed")
        return getattr(self.inner, name)


def test_a_store_that_is_down_is_unavailable_and_nothing_is_half_written():
    shared = Down(store())
    pipeline = server(shared)
    shared.broken = ("create",)
    with pytest.raises(Unavailable, match="create failed"):
        start(pipeline, turn_id="t1")
    shared.broken = ()
    start(pipeline, turn_id="t1")
    before = recall(pipeline)
    for method in ("save", "load"):
        shared.broken = (method,)
        with pytest.raises(Unavailable, match=f"{method} failed"):
            send(pipeline, start=True, resume=True, prompt="segment it", turn_id="t2")
        shared.broken = ()
        assert same(recall(pipeline), before)
    shared.broken = ("load", "create")
    with pytest.raises(Unavailable):
        send(pipeline, "d", start=True, action="branch", source="c", round=1)


def test_a_conversation_beyond_the_engines_length_is_refused_with_the_way_out():
    pipeline = server(max_positions=60)
    lengths, call = [], pipeline.small.models["mllm"]

    def measuring(**inputs):
        lengths.append(len(inputs["embeddings"]) + int((inputs["token_ids"] >= 0).sum()))
        return call(**inputs)

    pipeline.small.models["mllm"] = measuring
    start(pipeline)

    def until_refused():
        for size in range(1, 60):
            send(pipeline, prompt="a" * size)
            send(pipeline, action="undo", round=1)

    with pytest.raises(ValueError, match=r"at most 60; undo rounds, branch .* or start a new"):
        until_refused()
    assert max(lengths) in (58, 59), "one more is generated, and a letter is a token at most"
    assert recall(pipeline)["round"] == 1


def test_an_end_ends_the_conversation_here_and_keeps_it_stored():
    pipeline = server(max_conversations=1)
    start(pipeline)
    with pytest.raises(Unavailable, match="holds 1 conversations"):
        start(pipeline, name="d")
    send(pipeline, action="recall", end=True)
    start(pipeline, name="d", end=True)
    assert send(pipeline, start=True, resume=True, prompt="segment its tip")["round"] == 2


def test_pictures_of_one_channel_and_ids_that_triton_would_refuse():
    pipeline = server()
    grey = IMAGE[..., :1]
    send(pipeline, start=True, image=grey, prompt="segment the liver")
    assert send(pipeline, prompt="segment its tip", image=grey)["round"] == 2
    with pytest.raises(ValueError, match="conversation id"):
        send(pipeline, "x" * 129, start=True, image=grey, prompt="segment it")
    with pytest.raises(ValueError, match=r"round has shape \(2,\)"):
        send(pipeline, action="undo", round=[0, 1])
