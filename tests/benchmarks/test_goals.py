import pytest

from benchmarks.goals import Goal, read_goals, table


def test_a_value_exactly_on_its_bound_reaches_the_goal():
    assert Goal("a.b", at_most=1.15).reached(1.15)
    assert not Goal("a.b", at_most=1.15).reached(1.151)
    assert Goal("a.b", at_least=5).reached(5)
    assert not Goal("a.b", at_least=5).reached(4.99)


@pytest.mark.parametrize("bounds", [{}, {"at_most": 1, "at_least": 0}])
def test_a_goal_needs_exactly_one_bound(bounds):
    with pytest.raises(ValueError, match="either at_most or at_least"):
        Goal("a.b", **bounds)


def test_the_table_says_of_every_goal_whether_it_was_reached():
    goals = [
        Goal("medisee.demo.speedup", at_least=5),
        Goal("medisee.demo.ratio", at_most=1.15),
        Goal("medisee.full_sam.ratio", at_most=1.15),
    ]
    lines = table(goals, {"medisee.demo": {"speedup": 7.0, "ratio": 1.3}}).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [goal.figure for goal in goals]
    assert lines[1].endswith("7  reached")
    assert lines[2].endswith("1.3  not reached")
    assert lines[3].endswith("-  not measured")


@pytest.mark.parametrize(
    ("kind", "figure", "bound"),
    [
        ("bench", "medisee.full_sam.latency_over_longer_branch", "<= 1.15"),
        ("bench", "mediround.demo.later_over_first", "<= 0.35"),
        ("quality", "organseg.wrongly_refused", "<= 0.03"),
        ("quality", "mediround.resolver_accuracy", ">= 0.97"),
    ],
)
def test_goals_are_on_file(kind, figure, bound):
    assert {goal.figure: goal.bound for goal in read_goals(kind)}[figure] == bound
