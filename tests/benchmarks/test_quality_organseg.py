from collections import Counter

from benchmarks.quality_organseg import cases
from training.data.organs import ORGANS


def test_every_organ_is_asked_for_where_it_is_shown_and_only_lacking_ones_as_absent():
    drawn = list(cases(per_organ=1))
    shown = Counter(case.organ.name for case in drawn if case.organ and case.shown)
    assert shown == {organ.name: 1 for organ in ORGANS}
    absent = [case for case in drawn if case.organ and not case.shown]
    assert len(absent) >= len(ORGANS) - 1
    for case in absent:
        assert not case.view.masks[case.organ.id - 1].any()
    assert sum(case.organ is None for case in drawn) == len(ORGANS)
