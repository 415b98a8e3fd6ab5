import random
from collections import Counter
from itertools import islice

import pytest

from training.data.mixing import MEDISEE_RATIO, mix


def test_sources_are_drawn_in_the_ratio_of_medisee_by_default():
    drawn = Counter(islice(mix([lambda _: "class", lambda _: "why"], random.Random(0)), 9000))
    assert MEDISEE_RATIO == (7, 2)
    assert drawn["class"] == pytest.approx(7000, abs=160)  # four standard deviations


def test_the_ratio_is_a_parameter_and_zero_silences_a_source():
    sources = [lambda _: 0, lambda _: 1, lambda _: 2]
    assert set(islice(mix(sources, random.Random(0), (3, 0, 1)), 500)) == {0, 2}


def test_sources_draw_from_the_given_generator():
    def draw():
        return list(islice(mix([lambda rng: rng.random()], random.Random(1), (1,)), 5))

    assert draw() == draw()
    assert len(set(draw())) == 5


@pytest.mark.parametrize("ratio", [(1,), (1, 2, 3), (0, 0), (-1, 2)])
def test_a_ratio_that_does_not_fit_is_refused_before_the_first_draw(ratio):
    with pytest.raises(ValueError, match="expected 2 numbers >= 0"):
        mix([lambda _: 0, lambda _: 1], random.Random(0), ratio)
