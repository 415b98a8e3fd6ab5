"""LoRA on the CPU: one product per adapter and layer, where vLLM has one per token.

vLLM's own CPU kernels copy an adapter's matrices once for every token of a step, and give tokens
without an adapter the last slot's (vllm-project/vllm#48421). Runs inside vLLM's worker process;
written for vLLM 0.32.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker.cpu_worker import CPUWorker


class GroupedLora(PunicaWrapperCPU):
    """Adds the adapters' part to every linear layer; tokens without an adapter are left alone.

    Not for compiled models: the groups of a step are read while the layers run.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups: list[tuple[int, torch.Tensor]] = []

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Group the tokens of the coming steps by their adapter's slot."""
        super().update_metadata(*args, **kwargs)
        slots = self.token_lora_indices
        self._groups = [
            (slot, (slots == slot).nonzero()[:, 0]) for slot in slots.unique().tolist() if slot >= 0
        ]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add `scale * x @ A.T @ B.T` of each token's adapter to `y`, computed in float32.

        Args:
            y: (N, sum of widths) output of the layer, changed in place.
            x: (N, I) its input.
            lora_a_stacked: Per slice of the output (slots, 1, R, I).
            lora_b_stacked: Per slice of the output (slots, 1, width, R).
            scale: Factor.
            output_slices: Widths of the slices.
            buffer: Not used.
            **kwargs: Not used.
        """
        for slot, rows in self._groups:
            everything = len(rows) == len(x)
            inputs = (x if everything else x[rows]).float()
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                part = y[:, start : start + width]
                added = (inputs @ a[slot, 0].float().T @ b[slot, 0].float().T).to(y.dtype)
                if everything:
                    part.add_(added, alpha=scale)
                else:
                    part.index_add_(0, rows, added, alpha=scale)
                start += width


class GroupedLoraWorker(CPUWorker):
    """vLLM's CPU worker, with `GroupedLora` for the adapters' layers."""

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Load the model; the platform is asked for the class as the adapters' layers are made."""
        name = f"{GroupedLora.__module__}.{GroupedLora.__qualname__}"
        CpuPlatform.get_punica_wrapper = lambda _: name  # type: ignore[assignment, method-assign, misc]
        super().load_model(load_dummy_weights=load_dummy_weights)
