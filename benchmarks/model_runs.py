"""What models computed during a block, from Triton's statistics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import tritonclient.grpc as triton


@dataclass(frozen=True)
class Spent:
    """Work of one model."""

    runs: int
    """Requests answered."""
    total_ms: float
    """Time in the network, all requests together."""

    @property
    def mean_ms(self) -> float:
        """Time in the network per request."""
        return self.total_ms / self.runs


@contextmanager
def model_runs(
    client: triton.InferenceServerClient, names: Sequence[str]
) -> Iterator[dict[str, Spent]]:
    """Watch models that answer within `execute`, as the ONNX ones do.

    Yields:
        What each computed during the block; the dict is filled after it.
    """
    spent: dict[str, Spent] = {}
    before = _read(client)
    yield spent
    after = _read(client)
    for name in names:
        spent[name] = Spent(
            after[name].runs - before[name].runs, after[name].total_ms - before[name].total_ms
        )


def _read(client: triton.InferenceServerClient) -> dict[str, Spent]:
    statistics = client.get_inference_statistics()
    return {
        model.name: Spent(
            model.inference_stats.success.count, model.inference_stats.compute_infer.ns / 1e6
        )
        for model in statistics.model_stats
    }
