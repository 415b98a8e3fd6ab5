"""The only module that starts and calls vLLM.

One `AsyncLLM` serves prompts given as embeddings, with LoRA adapters and returned hidden states.
Knows nothing of Triton, token tables or text; `serving.mllm.engine` owns its life.

Written for vLLM 0.32 (the pin is in pyproject.toml's `vllm` extra). The interfaces used are not
stable: `AsyncLLM`, `AsyncEngineArgs`, `RequestOutput.kv_transfer_params` here, and the connector
interface in `serving.mllm.hidden_states`.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from serving.mllm.model_folder import BASE, ModelFolder

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

RESERVED_POSITIONS = 2
"""Positions of `max_model_len` never used.

vLLM skips the step that keeps hidden states for a whole batch when one of its sequences, with the
draft token, does not fit (`GPUModelRunner._input_fits_in_drafter`); other requests would lose
rows.
"""

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # Forking a Triton stub would copy its threads' locks.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""Variables set unless the process or `engine.json` sets them."""


CPU_WORKER = "serving.mllm.cpu_worker.GroupedLoraWorker"
"""vLLM's worker on a CPU with adapters; imports vLLM, so it is named and not imported here."""


class EngineDied(Exception):  # noqa: N818  (it names what happened)
    """The engine's process has ended; nothing more comes from it."""


@dataclass
class EngineOutput:
    """What came since the previous output of one request."""

    token_ids: list[int]
    """Generated ids, the one that ends the text included."""
    cached_tokens: int = 0
    """Prompt positions taken from the prefix cache; set in the last output."""
    hidden_rows: torch.Tensor | None = field(default=None, repr=False)
    """(P, E) in the engine's dtype, before the final norm; set in the last output."""


class VllmEngine:
    """A running engine."""

    def __init__(
        self, llm: AsyncLLM, folder: ModelFolder, loras: dict[str, Any], sockets: Path
    ) -> None:
        self._llm = llm
        self._folder = folder
        self._loras = loras
        self._sockets = sockets

    @classmethod
    def start(cls, folder: ModelFolder, sockets: Path) -> VllmEngine:
        """Start the engine's processes and load the base; blocks for 20 s or more.

        Call it from a thread without a running event loop; everything async belongs to one loop
        afterwards.

        Args:
            folder: What to serve.
            sockets: Private folder for the sockets between the engine's processes, which carry
                pickles; `shutdown` removes it.
        """
        sockets.mkdir(mode=0o700, exist_ok=True)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ.update(folder.settings.environment, VLLM_RPC_BASE_PATH=str(sockets))
        from vllm import AsyncEngineArgs
        from vllm.config import KVTransferConfig
        from vllm.lora.request import LoRARequest
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        from serving.mllm import hidden_states

        names = list(folder.adapters)
        arguments: dict[str, Any] = {
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "generation_config": "vllm",
            "max_num_seqs": folder.settings.max_in_flight,
            **folder.settings.arguments,
        }
        if names:
            arguments.setdefault("max_loras", len(names))
            arguments.setdefault("max_cpu_loras", max(len(names), arguments["max_loras"]))
            arguments["enable_lora"] = True
            # By default vLLM wraps every layer that could have an adapter, the embedding too. That
            # one is asked for the generated tokens alone, and its CPU kernel, which counts on all
            # tokens of the step, then ends the engine.
            arguments["lora_target_modules"] = list(folder.adapted_modules)
            if current_platform.is_cpu():
                arguments["worker_cls"] = CPU_WORKER
                arguments["enforce_eager"] = True
        engine_args = AsyncEngineArgs(
            model=str(folder.base),
            skip_tokenizer_init=True,
            enable_prompt_embeds=True,
            speculative_config={
                "method": "extract_hidden_states",
                "num_speculative_tokens": 1,
                "draft_model_config": {
                    # Layer k is the residual stream after k decoder layers.
                    "hf_config": {"eagle_aux_hidden_state_layer_ids": [folder.num_layers]}
                },
            },
            kv_transfer_config=KVTransferConfig(
                kv_connector=hidden_states.HiddenStatesConnector.__name__,
                kv_connector_module_path=hidden_states.__name__,
                kv_role="kv_producer",
                kv_connector_extra_config={hidden_states.OWNER_PID_KEY: os.getpid()},
            ),
            **arguments,
        )
        llm = AsyncLLM.from_engine_args(engine_args)
        # Ids are positional: a name keeps its id for the life of the engine.
        loras = {
            name: LoRARequest(name, index, str(folder.adapters[name]))
            for index, name in enumerate(names, start=1)
        }
        return cls(llm, folder, loras, sockets)

    async def load_adapters(self) -> None:
        """Load every adapter once, so that a bad one is known now and not by its first user."""
        for name, lora in self._loras.items():
            try:
                await self._llm.add_lora(lora)
            except Exception as error:
                raise ValueError(f"adapters/{name}: the engine refused it: {error}") from error

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of weights, embeddings and hidden rows."""
        dtype = self._llm.model_config.dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def max_length(self) -> int:
        """Most prompt positions and generated tokens of one request together."""
        return self._llm.model_config.max_model_len - RESERVED_POSITIONS

    @property
    def died(self) -> bool:
        """Whether the engine's process has ended by itself."""
        return self._llm.errored

    async def generate(
        self,
        request_id: str,
        embeddings: torch.Tensor,
        hidden_positions: list[int],
        adapter: str,
        max_tokens: int,
        temperature: float,
    ) -> AsyncGenerator[EngineOutput, None]:
        """Run one checked prompt; cancelling or closing the generator aborts it in the engine.

        Args:
            request_id: Unique among live requests.
            embeddings: (N, E) in `dtype`.
            hidden_positions: Positions in [0, N) whose rows the last output carries.
            adapter: Adapter's name, or "".
            max_tokens: Most tokens to generate, at least 1.
            temperature: 0 is greedy.

        Raises:
            EngineDied: if the engine ends before the request does.
        """
        from vllm import SamplingParams
        from vllm.inputs.engine import embeds_input
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        from serving.mllm.hidden_states import POSITIONS_KEY

        length = len(embeddings)
        # Without ids beside the embeddings the extraction of hidden states ends the engine.
        prompt = embeds_input(
            embeddings, prompt_token_ids=[0] * length, is_token_ids=[False] * length
        )
        sampling = SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            stop_token_ids=list(self._folder.eos_token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={"kv_transfer_params": {POSITIONS_KEY: hidden_positions}}
            if hidden_positions
            else None,
        )
        lora = None if adapter == BASE else self._loras[adapter]
        try:
            async for output in self._llm.generate(prompt, sampling, request_id, lora_request=lora):
                yield EngineOutput(
                    token_ids=list(output.outputs[0].token_ids),
                    cached_tokens=output.num_cached_tokens or 0,
                    hidden_rows=self._hidden_rows(output.kv_transfer_params, len(hidden_positions))
                    if output.finished
                    else None,
                )
        except EngineDeadError as error:
            raise EngineDied("the engine's process ended") from error

    def _hidden_rows(self, result: dict[str, Any] | None, count: int) -> torch.Tensor | None:
        from serving.mllm.hidden_states import DTYPE_KEY, ROWS_KEY

        if count == 0:
            return None
        if not result or ROWS_KEY not in result:
            raise RuntimeError("the engine returned no hidden rows; see the server's log")
        dtype = getattr(torch, result[DTYPE_KEY])
        rows = torch.frombuffer(bytearray(result[ROWS_KEY]), dtype=dtype).view(count, -1)
        assert rows.shape[1] == len(self._folder.norm_weight)
        return rows

    def shutdown(self) -> None:
        """End the engine's processes; returns when they have ended."""
        # vLLM would log the end of its output task as an error.
        task = self._llm.output_handler
        if task is not None and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)
        self._llm.shutdown(timeout=SHUTDOWN_TIMEOUT_S)
        # Its destructor fails when it runs at the end of the interpreter.
        del self._llm, task
        gc.collect()
        shutil.rmtree(self._sockets, ignore_errors=True)


SHUTDOWN_TIMEOUT_S = 10
"""Seconds the engine's processes get to end by themselves before they are killed."""
