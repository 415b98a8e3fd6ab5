import pytest

from benchmarks.mixed_load import _interleaved
from benchmarks.together import memory_ratios


def test_tasks_of_all_systems_are_spread_over_the_whole_load():
    order = _interleaved([["a"] * 4, ["b"] * 4, ["c"] * 2])
    assert sorted(order) == list("aaaabbbbcc")
    assert all({"a", "b"} <= set(order[start : start + 4]) for start in range(0, 8, 2))
    assert "c" in order[:5]
    assert "c" in order[5:]


def test_three_servers_are_set_against_one():
    figures = {"one_engine_memory_mib": 400.0, "medisee_memory_mib": 300.0}
    figures |= {"organseg_memory_mib": 250.0, "mediround_memory_mib": 350.0}
    assert memory_ratios(figures) == {
        "three_engines_memory_mib": 900,
        "memory_three_over_one": pytest.approx(2.25),
    }
