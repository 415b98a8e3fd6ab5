import numpy as np
import pytest

from benchmarks.agreement import least_agreement


def test_the_worst_pair_counts():
    one, other = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    other[0, :3] = True
    assert least_agreement([one, one], [one, other]) == 0.97


def test_masks_of_other_weights_end_the_run():
    with pytest.raises(RuntimeError, match=r"agree on 0%.*export it again"):
        least_agreement([np.zeros((4, 4), bool)], [np.ones((4, 4), bool)])
