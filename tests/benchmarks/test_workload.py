import pytest

from benchmarks.workload import REPEATED_PICTURES, Workload


@pytest.fixture(scope="module")
def workload():
    return Workload(long_side=64)


def test_fresh_pictures_are_never_the_same(workload):
    pictures = {case.image.tobytes() for case in workload.fresh(40) + workload.fresh(40)}
    pictures |= {picture.tobytes() for picture in workload.repeated_pictures}
    assert len(pictures) == 80 + REPEATED_PICTURES


def test_repeated_pictures_come_back_with_questions_of_their_own(workload):
    cases = workload.repeated(200) + workload.repeated(200)
    assert len({case.image.tobytes() for case in cases}) == REPEATED_PICTURES
    assert len({(case.image.tobytes(), case.prompt) for case in cases}) == len(cases)


def test_another_run_asks_the_same(workload):
    first, second = Workload(64), Workload(64)
    for one, other in zip(first.fresh(3), second.fresh(3), strict=True):
        assert one.prompt == other.prompt
        assert (one.image == other.image).all()
