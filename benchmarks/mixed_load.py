"""Requests to all three systems in equal shares, together and one system after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from benchmarks import closed_loop
from benchmarks.conversation_rounds import hold
from benchmarks.conversation_workload import Talks
from benchmarks.organ_workload import OrganWorkload
from benchmarks.ratios import Figures
from benchmarks.served import Served
from benchmarks.workload import Workload

SYSTEMS = ("medisee", "organseg", "mediround")

CONCURRENCY = 8
ROUNDS = 3
"""Rounds of each conversation."""

Task = Callable[[], object]


@dataclass(frozen=True)
class Load:
    """What one system is asked."""

    tasks: Sequence[Task]
    """Done by one worker each."""
    requests: int
    """In all tasks together."""


class MixedLoad:
    """An endless supply of loads.

    Questions to MediSee and Organ-Seg are about pictures that the server has seen; a conversation
    begins with a fresh one, as every conversation does.

    Args:
        servers: The server of each system; it may be the same.
        long_side: Pixels of the longer side of the pictures.
    """

    def __init__(self, servers: Mapping[str, Served], long_side: int) -> None:
        self._servers = servers
        self._questions = Workload(long_side)
        self._organs = OrganWorkload(long_side)
        self._talks = Talks(long_side)

    def warm_up(self) -> None:
        """Have the repeated pictures encoded, and every system reach its pace."""
        organseg = self._servers["organseg"].client
        for case in self._organs.every_repeated():
            organseg.find_organs(case.image, case.prompt)
        self.mixed(conversations=CONCURRENCY)

    def mixed(self, conversations: int) -> Figures:
        """Requests per second, of all systems at the same time.

        Args:
            conversations: How many; there are as many requests to each other system as they have
                rounds.
        """
        loads = self._loads(conversations).values()
        took_s = _wall_s(_interleaved([load.tasks for load in loads]))
        return {"throughput_mixed": sum(load.requests for load in loads) / took_s}

    def separate(self, conversations: int) -> Figures:
        """The same of each system after the other, and of the same amount of work in all."""
        loads = self._loads(conversations)
        took_s = {system: _wall_s(load.tasks) for system, load in loads.items()}
        return {
            **{
                f"throughput_{system}": load.requests / took_s[system]
                for system, load in loads.items()
            },
            "throughput_separate": sum(load.requests for load in loads.values())
            / sum(took_s.values()),
        }

    def _loads(self, conversations: int) -> dict[str, Load]:
        count = conversations * ROUNDS
        medisee, organseg = self._servers["medisee"].client, self._servers["organseg"].client
        mediround = self._servers["mediround"]
        return {
            "medisee": Load(
                [
                    partial(medisee.segment, case.image, case.prompt)
                    for case in self._questions.repeated(count)
                ],
                count,
            ),
            "organseg": Load(
                [
                    partial(organseg.find_organs, case.image, case.prompt)
                    for case in self._organs.repeated(count)
                ],
                count,
            ),
            "mediround": Load(
                [partial(hold, mediround, self._talks.draw(ROUNDS)) for _ in range(conversations)],
                count,
            ),
        }


def _wall_s(tasks: Sequence[Task]) -> float:
    return closed_loop.run(lambda task: task(), tasks, CONCURRENCY).wall_s


def _interleaved(lists: Sequence[Sequence[Task]]) -> list[Task]:
    """All tasks, each list spread evenly over the whole."""
    placed = chain.from_iterable(
        (((index + 0.5) / len(tasks), number, task) for index, task in enumerate(tasks))
        for number, tasks in enumerate(lists)
    )
    return [task for _, _, task in sorted(placed, key=lambda entry: entry[:2])]
