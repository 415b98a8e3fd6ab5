import numpy as np
import pytest
from saymask import ConversationRound

from benchmarks.conversation_rounds import conversation_figures, conversation_table
from benchmarks.conversation_workload import Talks
from serving.several_objects import split_objects


def answers():
    return [
        ConversationRound(
            1, "a", timings_ms={"total": 100.0}, cached_tokens=0, computed_tokens=120
        ),
        ConversationRound(2, "b", timings_ms={"total": 30.0}, cached_tokens=96, computed_tokens=50),
        ConversationRound(
            3, "c", timings_ms={"total": 20.0}, cached_tokens=128, computed_tokens=40
        ),
    ]


def test_whole_conversations_are_compared():
    figures = conversation_figures(answers(), loop_ms=[300.0, 200.0, 250.0])
    assert figures["conversation_ms_rounds_3"] == 150
    assert figures["loop_conversation_ms_rounds_3"] == 750
    assert figures["speedup_rounds_3"] == 5
    assert figures["loop_round_ms_rounds_3"] == 250
    assert figures["cached_tokens_round_3"] == 128
    assert figures["computed_tokens_round_2"] == 50
    lines = conversation_table(figures, (3,)).splitlines()
    assert lines[1].split() == ["3", "150", "750", "5.0"]
    assert [line.split() for line in lines[3:]] == [
        ["1", "0", "120"],
        ["2", "96", "50"],
        ["3", "128", "40"],
    ]


@pytest.fixture(scope="module")
def talks():
    supply = Talks(long_side=64)
    return [supply.draw(6) for _ in range(20)]


def test_every_conversation_has_a_picture_of_its_own(talks):
    assert len({talk.image.tobytes() for talk in talks}) == len(talks)


def test_every_round_but_the_first_refers_to_one_before_it(talks):
    for talk in talks:
        references = [one.reference for one in talk.rounds]
        assert references[0] is None
        assert all(0 <= reference < index for index, reference in enumerate(references) if index)
        assert all(one.truth.shape == talk.image.shape and one.truth.any() for one in talk.rounds)
    steps = [
        index - one.reference for talk in talks for index, one in enumerate(talk.rounds) if index
    ]
    assert 0.5 < np.mean([step == 1 for step in steps]) < 0.9


def test_every_round_asks_for_one_thing(talks):
    for talk in talks:
        for one in talk.rounds:
            assert len(split_objects(one.prompt)) == 1


def test_another_run_holds_the_same_conversations(talks):
    again = Talks(64).draw(6)
    assert [one.prompt for one in again.rounds] == [one.prompt for one in talks[0].rounds]
    assert (again.image == talks[0].image).all()
