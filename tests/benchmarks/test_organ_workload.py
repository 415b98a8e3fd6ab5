import pytest

from benchmarks.organ_rounds import organ_ratios
from benchmarks.organ_workload import OrganWorkload
from benchmarks.ratios import CONCURRENCY
from benchmarks.workload import REPEATED_PICTURES
from serving.several_objects import split_objects


@pytest.fixture(scope="module")
def workload():
    return OrganWorkload(long_side=160)


def test_fresh_pictures_are_never_the_same(workload):
    cases = workload.fresh(20) + workload.irrelevant(20) + workload.fresh(20)
    assert len({case.image.tobytes() for case in cases}) == len(cases)


def test_repeated_pictures_come_back_with_questions_of_their_own(workload):
    cases = workload.repeated(60) + workload.repeated(60)
    pictures = {case.image.tobytes() for case in cases}
    assert len(pictures) == REPEATED_PICTURES
    assert pictures == {case.image.tobytes() for case in workload.every_repeated()}
    assert len({(case.image.tobytes(), case.prompt) for case in cases}) == len(cases)


def test_every_question_asks_for_one_thing(workload):
    cases = workload.fresh(60) + workload.every_repeated()
    assert {len(split_objects(case.prompt)) for case in cases} == {1}


def figures():
    return {"loop_throughput": 2.0} | {
        f"throughput_{kind}_c{concurrency}": 3.0 * concurrency
        for kind in ("fresh", "repeated")
        for concurrency in CONCURRENCY
    }


def test_a_refusal_is_compared_with_an_outline_where_both_occurred():
    assert organ_ratios(figures())["speedup_fresh_c8"] == 12
    assert "refused_over_found" not in organ_ratios(figures())
    both = figures() | {"latency_ms_refused": 20.0, "latency_ms_fresh": 80.0}
    assert organ_ratios(both)["refused_over_found"] == 0.25
