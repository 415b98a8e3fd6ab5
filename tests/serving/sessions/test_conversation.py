import dataclasses

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.sessions.codec import decode, encode_picture, encode_rounds
from serving.sessions.conversation import (
    MAX_ID_BYTES,
    Conversation,
    Reference,
    append_round,
    branch,
    check_conversation_id,
    replace_instance,
    undo,
)
from tests.serving.sessions.records import (
    PACKED,
    a_conversation,
    a_round,
    an_instance,
    plain,
    random_mask,
)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("good", ["a", "é" * 64, "3f2b 99", "}{", "x" * MAX_ID_BYTES])
def test_printable_ids_up_to_128_bytes_are_taken(good):
    check_conversation_id(good)


@pytest.mark.parametrize("bad", ["", "a\n", "a\x00b", "\u202eabc", "é" * 65, "\ud800"])
def test_other_ids_are_refused(bad):
    with pytest.raises(ValueError, match="conversation id"):
        check_conversation_id(bad)
    with pytest.raises(ValueError, match="conversation id"):
        a_conversation(bad)


def test_lookups_name_the_rounds_there_are(rng):
    conversation = a_conversation(rounds=1)
    two = [an_instance(rng, 2), an_instance(rng, 3)]
    conversation = append_round(conversation, a_round(rng, 2, two))
    conversation = append_round(conversation, a_round(rng, 3, kind="text"))
    listing = r"has the rounds 1 \(instance 1\), 2 \(instance 2, 3\), 3 \(no mask\)$"
    assert conversation.round(2).instances == tuple(two)
    assert conversation.instance(3) is two[1]
    assert (conversation.round_of(1), conversation.round_of(3)) == (1, 2)
    for missing in (0, -1, 4):
        with pytest.raises(ValueError, match=f"no round {missing}: .*{listing}"):
            conversation.round(missing)
        with pytest.raises(ValueError, match=f"no instance {missing}: .*{listing}"):
            conversation.instance(missing)
    with pytest.raises(ValueError, match=f"instance 3 is of round 2, not of round 1.*{listing}"):
        conversation.mask_of(Reference(round=1, instance=3))
    with pytest.raises(ValueError, match="no rounds yet"):
        a_conversation().round(1)


def test_a_drawn_mask_is_its_own_reference(rng):
    drawn = random_mask(rng)
    reference = Reference(round=0, instance=0, mask=drawn)
    conversation = append_round(
        a_conversation(), a_round(rng, 1, [an_instance(rng, 1)], [reference])
    )
    np.testing.assert_array_equal(conversation.mask_of(reference), drawn)
    for bad in ({"round": 0, "instance": 0}, {"round": 1, "instance": 1, "mask": drawn}):
        with pytest.raises(ValueError, match="reference to round"):
            Reference(**bad)


def test_what_does_not_follow_is_refused(rng):
    conversation = a_conversation(rounds=2)
    first = conversation.rounds[0]
    mine = an_instance(rng, 3)
    wrong_mask = np.zeros((PACKED[0], PACKED[1] + 1), np.uint8)
    tokens = np.zeros((1, 2, 8), np.float32)
    to_the_future = [Reference(round=3, instance=3)]
    refused = {
        "round 4: expected 3": lambda: a_round(rng, 4, [mine]),
        "instance 4, expected 3": lambda: a_round(rng, 3, [an_instance(rng, 4)]),
        "no instance 3": lambda: a_round(rng, 3, [mine], to_the_future),
        "applied before, as round 1": lambda: a_round(rng, 3, [mine], turn_id=first.turn_id),
        "replaces instance 9": lambda: a_round(rng, 3, [mine], revisions=(an_instance(rng, 9),)),
        r"is \(6, 3\)": lambda: a_round(rng, 3, [an_instance(rng, 3, mask=wrong_mask)]),
        r"tokens \(0, 2, E\)": lambda: a_round(rng, 3, [mine], reference_tokens=tokens),
        "one for each": lambda: a_round(rng, 3, [mine], subquestions=()),
        "no instances": lambda: a_round(rng, 3, [mine], kind="text"),
        "mask: expected uint8": lambda: an_instance(rng, 3, mask=np.zeros(PACKED, bool)),
    }
    for text, build in refused.items():
        with pytest.raises(ValueError, match=text):
            append_round(conversation, build())
    assert plain(conversation) == plain(a_conversation(rounds=2))


def test_rounds_without_a_key_never_count_as_repeated(rng):
    conversation = append_round(a_conversation(), a_round(rng, 1, turn_id=""))
    conversation = append_round(conversation, a_round(rng, 2, turn_id=""))
    assert conversation.turn("") is None
    assert conversation.turn("unknown") is None
    known = a_conversation(rounds=2)
    assert known.turn(known.rounds[1].turn_id) is known.rounds[1]


def test_undo_and_branch_give_back_the_masks_of_that_round(rng):
    before = a_conversation(rounds=2)
    better = dataclasses.replace(before.instance(1), mask=random_mask(rng), corrected=True)
    third = a_round(rng, 3, [an_instance(rng, 3)], revisions=(better,))
    after = append_round(before, third)
    assert after.instance(1) is better
    assert after.round_of(1) == 1
    assert after.instances == (better, before.instance(2), third.instances[0])
    assert after.rounds[0].instances == before.rounds[0].instances  # as it was answered
    assert undo(after, 2).instance(1) is before.instance(1)
    copy = branch(after, "c-2", 2, created_s=2e9)
    assert copy.instance(1) is before.instance(1)
    assert (copy.branched_from, copy.revision, copy.created_s) == (("c-1", 2), 0, 2e9)
    with pytest.raises(ValueError, match="new id"):
        branch(after, "c-1", 2, created_s=2e9)
    again = dataclasses.replace(better, mask=random_mask(rng))
    twice = replace_instance(replace_instance(before, better), again)
    assert twice.instance(1) is again
    assert twice.rounds[1].revisions == (again,)


def test_arrays_are_copies_that_cannot_be_written(rng):
    image = np.zeros((6, 11, 3), np.uint8)
    mask = random_mask(rng)
    conversation = a_conversation(image=image)
    instance = an_instance(rng, 1, mask=mask)
    kept = mask.copy()
    image[:], mask[:] = 1, ~mask  # as when Triton takes its memory back
    assert not conversation.image.any()
    np.testing.assert_array_equal(instance.mask, kept)
    with pytest.raises(ValueError, match="read-only"):
        instance.mask[0] = 0
    assert append_round(conversation, a_round(rng, 1)).image is conversation.image


def test_the_size_counts_every_array_and_text(rng):
    image = np.zeros((6, 11, 3), np.uint8)
    empty = a_conversation(image=image)
    big = append_round(
        empty,
        a_round(
            rng,
            1,
            [an_instance(rng, 1, text_embedding=np.zeros(1000, np.float32))],
            [Reference(round=0, instance=0, mask=random_mask(rng))],
            reference_tokens=np.zeros((1, 2, 500), np.float32),
            prompt="ü" * 5000,
            revisions=(an_instance(rng, 1, text_embedding=np.zeros(2000, np.float32)),),
        ),
    )
    assert empty.size_bytes >= image.nbytes
    grown = big.size_bytes - empty.size_bytes
    exact = 4000 + 8000 + 3 * 12 + 4000 + 10000
    assert exact < grown < exact + 5 * 1024


class Conversations(RuleBasedStateMachine):
    """Random rounds, undos, branches and corrections against lists of what was put in."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.real: dict[str, Conversation] = {}
        # Id -> rounds; a round is its own masks and those it replaced, by instance number.
        self.model: dict[str, list[tuple[dict[int, bytes], dict[int, bytes]]]] = {}

    @initialize()
    def start(self):
        self.real["c-0"] = a_conversation("c-0")
        self.model["c-0"] = []

    def one_of(self, data):
        return data.draw(st.sampled_from(sorted(self.real)))

    @staticmethod
    def masks(rounds):
        masks: dict[int, bytes] = {}
        for own, replaced in rounds:
            masks |= own
            masks |= replaced
        return masks

    @rule(data=st.data(), count=st.integers(0, 3))
    def ask(self, data, count):
        key = self.one_of(data)
        rounds = self.model[key]
        known = sorted(self.masks(rounds))
        instances = [an_instance(self.rng, len(known) + 1 + index) for index in range(count)]
        cited = data.draw(st.lists(st.sampled_from(known), max_size=3)) if known else []
        replaced = data.draw(st.sets(st.sampled_from(known), max_size=2)) if known else set()
        revisions = tuple(an_instance(self.rng, number) for number in sorted(replaced))
        references = [
            Reference(round=self.real[key].round_of(number), instance=number) for number in cited
        ]
        self.real[key] = append_round(
            self.real[key],
            a_round(self.rng, len(rounds) + 1, instances, references, revisions=revisions),
        )
        own = {each.number: each.mask.tobytes() for each in instances}
        rounds.append((own, {each.number: each.mask.tobytes() for each in revisions}))

    @rule(data=st.data())
    def undo(self, data):
        key = self.one_of(data)
        last = data.draw(st.integers(0, len(self.model[key])))
        before = self.real[key]
        self.real[key] = undo(before, last)
        assert self.real[key].revision == before.revision + 1
        self.model[key] = self.model[key][:last]

    @precondition(lambda self: len(self.real) < 6)
    @rule(data=st.data())
    def branch(self, data):
        key, new = self.one_of(data), f"c-{len(self.real)}"
        last = data.draw(st.integers(0, len(self.model[key])))
        self.real[new] = branch(self.real[key], new, last, created_s=1.0)
        self.model[new] = list(self.model[key][:last])

    @rule(data=st.data())
    def correct(self, data):
        key = self.one_of(data)
        known = sorted(self.masks(self.model[key]))
        if not known:
            return
        better = an_instance(self.rng, data.draw(st.sampled_from(known)))
        self.real[key] = replace_instance(self.real[key], better)
        own, replaced = self.model[key][-1]
        self.model[key][-1] = (own, replaced | {better.number: better.mask.tobytes()})

    @invariant()
    def every_conversation_is_what_was_put_in(self):
        for key, rounds in self.model.items():
            conversation = self.real[key]
            masks = self.masks(rounds)
            assert [each.number for each in conversation.instances] == sorted(masks)
            assert {each.number: each.mask.tobytes() for each in conversation.instances} == masks
            assert [
                {each.number: each.mask.tobytes() for each in one.instances}
                for one in conversation.rounds
            ] == [own for own, _ in rounds]
            assert not set(conversation.branched_from or ()) & {conversation.id}

    def teardown(self):
        for conversation in self.real.values():
            stored = encode_picture(conversation), encode_rounds(conversation)
            assert plain(decode(*stored)) == plain(conversation)


Conversations.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, derandomize=True
)
TestConversations = Conversations.TestCase
