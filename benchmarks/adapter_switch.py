"""What it costs the engine when requests want different adapters.

The language model is asked directly. All prompts have the same length, and each an image of its
own, so that the prefix cache has nothing of them.
"""

import numpy as np
import tritonclient.grpc as triton

from benchmarks import closed_loop
from benchmarks.ratios import Figures
from benchmarks.triton_calls import Tensors, infer
from training.networks.profiles import Profile

ADAPTERS = ("medisee", "mediround", "organseg")
WORDS = 24
"""Tokens behind the image."""
FEWEST_ID = 3
"""The ids below it are special."""
SEED = 31_000


class AdapterSwitch:
    """Series of requests with one adapter, and with all of them in turn.

    Args:
        client: Connection to the server.
        profile: Sizes of its networks.
    """

    def __init__(self, client: triton.InferenceServerClient, profile: Profile) -> None:
        self._client = client
        self._profile = profile
        self._rng = np.random.default_rng(SEED)

    def measure(self, count: int) -> Figures:
        """Ask `count` times per adapter, then as many times in turn; one at a time and eight."""
        series = [adapter for adapter in ADAPTERS for _ in range(count)]
        in_turn = list(ADAPTERS) * count
        figures: Figures = {}
        for concurrency, suffix in ((1, ""), (8, "_c8")):
            # With eight at a time the series overlap at their two borders alone.
            for name, adapters in (("same_adapter", series), ("alternating", in_turn)):
                requests = [self._request(adapter) for adapter in adapters]
                measured = closed_loop.run(self._ask, requests, concurrency)
                if concurrency == 1:
                    figures[f"mllm_ms_{name}"] = measured.latency_ms
                else:
                    figures[f"mllm_throughput_{name}{suffix}"] = measured.throughput
        figures["adapter_switch_ms"] = (
            figures["mllm_ms_alternating"] - figures["mllm_ms_same_adapter"]
        )
        figures["alternating_over_same_c8"] = (
            figures["mllm_throughput_alternating_c8"] / figures["mllm_throughput_same_adapter_c8"]
        )
        return figures

    def _request(self, adapter: str) -> Tensors:
        sizes = self._profile
        words = self._rng.integers(FEWEST_ID, sizes.mistral.vocab_size, WORDS)
        image = self._rng.standard_normal((sizes.image_tokens, sizes.mistral.hidden_size))
        return {
            "token_ids": np.array([1, -1, *words], np.int32),
            "embeddings": image.astype(np.float32),
            "hidden_positions": np.array([-1], np.int32),
            "adapter": np.array([adapter.encode()], np.object_),
        }

    def _ask(self, request: Tensors) -> None:
        computed = infer(self._client, "mllm", request)["computed_tokens"][0]
        if computed != self._profile.image_tokens + WORDS + 1:
            raise RuntimeError(
                f"the prefix cache had a part of a fresh prompt: {computed} computed"
            )
