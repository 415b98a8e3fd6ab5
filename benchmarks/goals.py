"""Goals for the figures, and the table that says which were reached."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOALS = Path(__file__).with_name("goals.toml")


@dataclass(frozen=True)
class Goal:
    """A bound for one figure."""

    figure: str
    """`name.figure`, by the keys of the results; the name may hold dots, the figure none."""
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"goal {self.figure}: give either at_most or at_least")

    @property
    def bound(self) -> str:
        """The bound as it is printed."""
        return f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"

    def reached(self, value: float) -> bool:
        """Whether a value keeps the bound; exactly on it does."""
        if self.at_most is not None:
            return value <= self.at_most
        assert self.at_least is not None
        return value >= self.at_least


def read_goals(kind: str, file: Path = GOALS) -> list[Goal]:
    """Read the goals of one command.

    Args:
        kind: `bench` or `quality`.
        file: Holds them.

    Raises:
        ValueError: if one has no bound, or two.
        TypeError: if one has a key that goals do not have.
    """
    return [Goal(**entry) for entry in tomllib.loads(file.read_text())[kind]]


def table(goals: Sequence[Goal], figures: dict[str, dict[str, Any]]) -> str:
    """One line per goal: figure, goal, value, reached or not."""
    rows = [("figure", "goal", "measured", "")]
    for goal in goals:
        name, _, figure = goal.figure.rpartition(".")
        value = figures.get(name, {}).get(figure)
        if value is None:
            rows.append((goal.figure, goal.bound, "-", "not measured"))
        else:
            words = "reached" if goal.reached(value) else "not reached"
            rows.append((goal.figure, goal.bound, f"{value:.4g}", words))
    width = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row[0]:{width[0]}}  {row[1]:>{width[1]}}  {row[2]:>{width[2]}}  {row[3]}".rstrip()
        for row in rows
    )
