"""vLLM connector that hands back the last layer's hidden states at chosen prompt positions.

vLLM's `extract_hidden_states` keeps one row per position in a cache group of its own, in the same
blocks as keys and values, so rows of a prefix-cache hit are there too. This connector reads from
that group only the rows a request asked for, in the step that computes the last of them, and
returns them as `kv_transfer_params` of the request's final output. Nothing touches a disk, and no
block is held back, so an aborted request leaves nothing behind. It knows nothing of embeddings,
adapters or the final norm: rows are the residual stream before it.

A request asks with `SamplingParams.extra_args["kv_transfer_params"] = {"hidden_positions": [...]}`
(non-negative, inside the prompt) and gets `{"hidden_rows": bytes, "hidden_dtype": "float32"}`.

Runs inside vLLM's processes. Written for the connector interface of vLLM 0.32
(`vllm/distributed/kv_transfer/kv_connector/v1/base.py`), which changes between minor versions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.v1.kv_cache_interface import HiddenStateCacheSpec

from serving.mllm.owner_watch import end_with

if TYPE_CHECKING:
    from vllm.forward_context import ForwardContext
    from vllm.v1.attention.backend import AttentionMetadata
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

POSITIONS_KEY = "hidden_positions"
"""Key of the request's `kv_transfer_params`: list of P prompt positions."""

ROWS_KEY = "hidden_rows"
"""Key of the result: P * E values, row-major, as bytes in the engine's dtype."""

DTYPE_KEY = "hidden_dtype"
"""Key of the result: name of the torch dtype of the rows, such as "bfloat16"."""

OWNER_PID_KEY = "owner_pid"
"""Key of `kv_connector_extra_config`: the process without which the engine must not live on."""


@dataclass
class RowExport(KVConnectorMetadata):
    """What the worker reads in one step; scheduler to worker."""

    slots: dict[str, list[int]] = field(default_factory=dict)
    """Request id to cache slots (block * block size + offset), in the order asked for."""


class ExportedRows(KVConnectorWorkerMetadata):
    """Rows read in one step; worker to scheduler.

    vLLM collects this object before the hidden states of the step are written and sends it
    after, so it is handed out empty and filled in `HiddenStatesConnector.wait_for_save`.
    """

    def __init__(self) -> None:
        self._request_ids: list[str] = []
        self._lengths: list[int] = []
        self._rows: torch.Tensor | None = None
        self._copied: Any = None

    def fill(self, slots: dict[str, list[int]], rows: torch.Tensor, copied: Any) -> None:
        """Keep `rows` (sum of P, E) on the host; `copied` is a CUDA event to wait for, or None."""
        self._request_ids = list(slots)
        self._lengths = [len(request_slots) for request_slots in slots.values()]
        self._rows = rows
        self._copied = copied

    def by_request(self) -> dict[str, tuple[bytes, str]]:
        """Request id to (row bytes, dtype name); waits for the copy from the device."""
        if self._rows is None:
            return {}
        if self._copied is not None:
            self._copied.synchronize()
        # NumPy has no bfloat16: the bytes travel as they are and the dtype beside them.
        flat = self._rows.contiguous().view(torch.uint8).numpy()
        dtype = str(self._rows.dtype).removeprefix("torch.")
        result, start = {}, 0
        for request_id, length in zip(self._request_ids, self._lengths, strict=True):
            result[request_id] = (flat[start : start + length].tobytes(), dtype)
            start += length
        return result

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """Combine the workers of one step: only tensor-parallel rank 0 has rows."""
        assert isinstance(other, ExportedRows)
        return self if self._rows is not None else other

    def __getstate__(self) -> dict[str, Any]:
        # Pickled on its way out of a worker process: an event cannot travel, so wait here.
        if self._copied is not None:
            self._copied.synchronize()
        return {**self.__dict__, "_copied": None}


class HiddenStatesConnector(KVConnectorBase_V1, SupportsHMA):
    """Exports hidden-state rows; loads and stores no keys or values."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        role: KVConnectorRole,
        kv_cache_config: KVCacheConfig,
    ) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self._group = hidden_states_group(kv_cache_config)
        group = kv_cache_config.kv_cache_groups[self._group]
        self._block_size: int = group.kv_cache_spec.block_size
        # Scheduler side.
        self._live: set[str] = set()
        self._wanted: dict[str, list[int]] = {}
        self._arrived: dict[str, tuple[bytes, str]] = {}
        self._unfilled: dict[str, dict[str, Any]] = {}
        # Worker side.
        self._cache: torch.Tensor | None = None
        self._exported: ExportedRows | None = None
        self._copy_stream: Any = None
        if role == KVConnectorRole.SCHEDULER:
            owner_pid = self._kv_transfer_config.get_from_extra_config(OWNER_PID_KEY, None)
            if owner_pid is not None:
                end_with(int(owner_pid))

    @property
    def requires_kv_delivery(self) -> bool:
        """False: rows are copied out in their own step, so a preemption loses none."""
        return False

    # Scheduler side.

    def on_new_request(self, request: Request) -> None:
        """Remember which positions the request asks for."""
        positions = (request.kv_transfer_params or {}).get(POSITIONS_KEY)
        if positions:
            self._live.add(request.request_id)
            self._wanted[request.request_id] = list(positions)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> RowExport:
        """Plan the exports of this step: requests whose last wanted row it computes."""
        export = RowExport()
        if not self._wanted:
            return export
        cached = scheduler_output.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        computed.update(
            (r.req_id, r.num_computed_tokens) for r in scheduler_output.scheduled_new_reqs
        )
        block_state = scheduler_output.kv_connector_block_state
        assert block_state is not None
        for request_id, scheduled in scheduler_output.num_scheduled_tokens.items():
            positions = self._wanted.get(request_id)
            if positions is None or max(positions) >= computed[request_id] + scheduled:
                continue
            block_ids = block_state.get_block_ids(request_id)
            assert block_ids is not None
            blocks = block_ids[self._group]
            export.slots[request_id] = [
                blocks[position // self._block_size] * self._block_size
                + position % self._block_size
                for position in positions
            ]
            del self._wanted[request_id]
        return export

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Return the request's rows; never delays the freeing of its blocks."""
        self._wanted.pop(request.request_id, None)
        arrived = self._arrived.pop(request.request_id, None)
        result: dict[str, Any] = {}
        if arrived is not None:
            result[ROWS_KEY], result[DTYPE_KEY] = arrived
        elif request.request_id in self._live:
            # The scheduler finishes requests before it hands over the rows of the same step
            # (Scheduler.update_from_output), and sends the outputs after both.
            self._unfilled[request.request_id] = result
        self._live.discard(request.request_id)
        return False, result

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        """Take the rows that the worker read in a step."""
        exported = connector_output.kv_connector_worker_meta
        if isinstance(exported, ExportedRows):
            for request_id, rows in exported.by_request().items():
                result = self._unfilled.get(request_id)
                if result is not None:
                    result[ROWS_KEY], result[DTYPE_KEY] = rows
                elif request_id in self._live:  # and not aborted while its step ran
                    self._arrived[request_id] = rows
        # Whoever finished up to this step had to be served by it: the rest was aborted.
        self._unfilled.clear()

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """Nothing is ever loaded."""
        return 0, False

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        """Nothing is ever loaded."""

    # Worker side.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Find the cache of hidden states (num_blocks, 1, block_size, E)."""
        from vllm.model_executor.models.extract_hidden_states import CacheOnlyAttentionLayer

        layers = get_layers_from_vllm_config(
            self._vllm_config, CacheOnlyAttentionLayer, list(kv_caches)
        )
        if len(layers) != 1:
            raise ValueError(f"expected one layer that caches hidden states, got {list(layers)}")
        cache = kv_caches[next(iter(layers))]
        if cache.shape[1] != 1 or cache.shape[2] != self._block_size:
            raise ValueError(
                f"cache of hidden states: expected (num_blocks, 1, {self._block_size}, E), "
                f"got {tuple(cache.shape)}"
            )
        # Every tensor-parallel rank holds the same rows.
        self._cache = cache if get_tensor_model_parallel_rank() == 0 else None

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        """Open a step."""
        super().bind_connector_metadata(connector_metadata)
        assert isinstance(connector_metadata, RowExport)
        self._exported = ExportedRows() if connector_metadata.slots else None

    def build_connector_worker_meta(self) -> ExportedRows | None:
        """Hand out this step's rows, filled before or after this call."""
        return self._exported

    def wait_for_save(self) -> None:
        """Read the rows: runs after the step's hidden states are in the cache."""
        export = self._get_connector_metadata()
        assert isinstance(export, RowExport)
        if self._exported is None or self._cache is None:
            return
        slots = torch.tensor([slot for wanted in export.slots.values() for slot in wanted])
        cache = self._cache
        if not cache.is_cuda:
            rows = cache[slots // self._block_size, 0, slots % self._block_size]
            self._exported.fill(export.slots, rows, None)
            return
        # Gather on the compute stream, so that no later step can overwrite a block first; only
        # the small result is copied on another stream, and the step does not wait for it.
        slots = slots.pin_memory().to(cache.device, non_blocking=True)
        gathered = cache[slots // self._block_size, 0, slots % self._block_size]
        if self._copy_stream is None:
            self._copy_stream = torch.cuda.Stream(cache.device)
        self._copy_stream.wait_stream(torch.cuda.current_stream(cache.device))
        with torch.cuda.stream(self._copy_stream):
            rows = torch.empty_like(gathered, device="cpu", pin_memory=True)
            rows.copy_(gathered, non_blocking=True)
            gathered.record_stream(self._copy_stream)
            copied = torch.cuda.Event()
            copied.record()
        self._exported.fill(export.slots, rows, copied)

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        """Nothing is ever loaded."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is ever loaded."""

    def save_kv_layer(
        self,
        layer_name: str,
        kv_layer: torch.Tensor,
        attn_metadata: AttentionMetadata,
        **kwargs: Any,
    ) -> None:
        """Rows are read in `wait_for_save`, when they are complete."""


def hidden_states_group(kv_cache_config: KVCacheConfig) -> int:
    """Index of the cache group whose blocks hold the hidden states."""
    groups = kv_cache_config.kv_cache_groups
    found = [
        index
        for index, group in enumerate(groups)
        if isinstance(group.kv_cache_spec, HiddenStateCacheSpec)
    ]
    if len(groups) == 1:
        # Layers of one page size share one group and its blocks.
        return 0
    if len(found) != 1:
        raise ValueError(
            f"expected one cache group of hidden states, found {len(found)} among {len(groups)}; "
            "start the engine with the `extract_hidden_states` method"
        )
    return found[0]
