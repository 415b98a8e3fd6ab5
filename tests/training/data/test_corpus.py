"""Text for the tokenizer: of both regions, repeatable, nothing held out."""

from training.data.corpus import corpus
from training.data.false_premises import _UNRELATED
from training.data.organs import ORGANS
from training.data.structures import STRUCTURES


def test_equal_seeds_give_equal_lines_and_as_many_as_asked_for():
    assert list(corpus(51, seed=4)) == list(corpus(51, seed=4))
    assert list(corpus(51, seed=4)) != list(corpus(51, seed=5))
    assert len(list(corpus(51, seed=4))) == 51


def test_lines_name_every_target_and_hold_nothing_of_the_test_split():
    lines = " | ".join(line.lower() for line in corpus(20_000, seed=2))
    for target in (*STRUCTURES, *ORGANS):
        assert target.name in lines
        for fact in (*target.attributes, *target.locations):
            assert f" {fact.held_out.lower()}" not in lines, fact
    for text in _UNRELATED["test"]:
        assert f"| {text.lower()}" not in lines
