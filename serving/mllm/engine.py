"""The life of the one engine: admission, requests, death, one restart, shutdown.

`VllmEngine` runs prompts; this module decides when there is one. It knows nothing of Triton.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor

from serving.errors import Unavailable, kind_of
from serving.mllm.counters import Counters
from serving.mllm.final_norm import apply_final_norm
from serving.mllm.messages import Completion, GenerateRequest, TextIncrement
from serving.mllm.model_folder import ModelFolder
from serving.mllm.prompt import Prompt, assemble_prompt
from serving.mllm.text import TextDecoder
from serving.mllm.vllm_engine import EngineDied, VllmEngine

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 0.25
"""Seconds between two looks at an idle engine's process."""

SOCKETS_FOLDER = "engine"
"""Folder, in the runtime folder, of the sockets of vLLM's processes."""

REQUESTS = "requests"
PROMPT_TOKENS = "prompt_tokens"
RESTARTS = "restarts"
"""Names in `Counters`."""

State = Literal["starting", "ready", "restarting", "down", "closed"]


class MllmEngine:
    """Answers requests with a vLLM engine that is restarted once when it dies.

    All coroutines run on one event loop; starting and ending the engine block a thread of their
    own meanwhile, so that requests are refused at once and never wait for a restart.
    """

    def __init__(
        self,
        folder: ModelFolder,
        counters: Counters,
        runtime_folder: Path,
        start: Callable[[ModelFolder, Path], VllmEngine] = VllmEngine.start,
    ) -> None:
        self._folder = folder
        self._counters = counters
        self._sockets = runtime_folder / SOCKETS_FOLDER
        self._start = start
        self._processor = SentencePieceProcessor(str(folder.base / "tokenizer.model"))
        self._engine: VllmEngine | None = None
        self._state: State = "starting"
        self._deaths: list[float] = []
        self._watcher: asyncio.Task | None = None
        self._names = itertools.count()
        self._starter = ThreadPoolExecutor(1, "mllm-start")
        self._assemblers = ThreadPoolExecutor(2, "mllm-prompt")

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self._state == "ready"

    async def open(self) -> None:
        """Start the engine; 20 s or more."""
        await self._open_engine()
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End the engine and its processes."""
        self._state = "closed"
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._shut_engine_down()
        self._starter.shutdown()
        self._assemblers.shutdown()

    async def generate(
        self, request: GenerateRequest
    ) -> AsyncGenerator[TextIncrement | Completion, None]:
        """Answer one request: any number of increments, then one completion.

        Cancelling or closing the generator aborts the request in the engine.

        Raises:
            ValueError: if the request cannot be served.
            Unavailable: if too many are in flight, or there is no engine, or it dies meanwhile.
        """
        outcome = "ok"
        completion = None
        try:
            engine = self._admit()
            try:
                async with aclosing(self._run(engine, request)) as replies:
                    async for reply in replies:
                        if isinstance(reply, Completion):
                            completion = reply
                        else:
                            yield reply
            finally:
                # Before the answer leaves: whoever has it may ask again at once.
                self._counters.leave()
        except BaseException as error:
            closed = isinstance(error, GeneratorExit)
            outcome = "cancelled" if closed else kind_of(error).lower()
            raise
        finally:
            self._counters.add(REQUESTS, outcome)
        assert completion is not None
        yield completion

    def _admit(self) -> VllmEngine:
        if self._state != "ready" or self._engine is None:
            raise Unavailable(_REFUSALS[self._state])
        limit = self._folder.settings.max_in_flight
        if not self._counters.enter(limit):
            raise Unavailable(
                f"{limit} requests are in flight, the limit (max_in_flight in engine.json); "
                "try again later"
            )
        return self._engine

    async def _run(
        self, engine: VllmEngine, request: GenerateRequest
    ) -> AsyncGenerator[TextIncrement | Completion, None]:
        prompt = await asyncio.get_running_loop().run_in_executor(
            self._assemblers,
            assemble_prompt,
            request,
            self._folder,
            engine.dtype,
            engine.max_length,
        )
        if engine is not self._engine:  # it died, or was closed, meanwhile
            raise Unavailable("the engine ended before it had this request; try again")
        decoder = TextDecoder(self._processor)
        last = None
        try:
            async with aclosing(
                engine.generate(
                    str(next(self._names)),
                    prompt.embeddings,
                    prompt.hidden_positions,
                    request.adapter,
                    max(request.max_tokens, 1),
                    request.temperature,
                )
            ) as outputs:
                async for output in outputs:
                    # One token is generated even for none.
                    if request.max_tokens > 0:
                        increment = decoder.push(self._without_end(output.token_ids))
                        if increment:
                            yield TextIncrement(increment)
                    last = output
        except EngineDied as error:
            raise Unavailable(
                "the engine died while it worked on this request; it is being restarted, try again"
            ) from error
        assert last is not None
        yield self._completion(prompt, last.hidden_rows, last.cached_tokens, decoder.flush())

    def _completion(
        self, prompt: Prompt, rows: torch.Tensor | None, cached_tokens: int, text: str
    ) -> Completion:
        hidden_states = np.zeros((0, prompt.embeddings.shape[1]), dtype=np.float32)
        if rows is not None:
            hidden_states = apply_final_norm(
                rows, self._folder.norm_weight, self._folder.norm_eps
            ).numpy()
        computed_tokens = len(prompt.embeddings) - cached_tokens
        self._counters.add(PROMPT_TOKENS, "cached", cached_tokens)
        self._counters.add(PROMPT_TOKENS, "computed", computed_tokens)
        return Completion(
            text=text,
            hidden_states=hidden_states,
            cached_tokens=cached_tokens,
            computed_tokens=computed_tokens,
        )

    def _without_end(self, token_ids: list[int]) -> list[int]:
        return [i for i in token_ids if i not in self._folder.eos_token_ids]

    # Life and death.

    async def _open_engine(self) -> None:
        loop = asyncio.get_running_loop()
        starting = loop.run_in_executor(self._starter, self._start, self._folder, self._sockets)
        try:
            self._engine = engine = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on: `close` shuts down what it starts.
            self._engine = await starting
            raise
        try:
            await engine.load_adapters()
        except BaseException:
            await self._shut_engine_down()
            raise
        self._state = "ready"

    async def _shut_engine_down(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.get_running_loop().run_in_executor(self._starter, engine.shutdown)

    async def _watch(self) -> None:
        while self._state == "ready":
            await asyncio.sleep(WATCH_INTERVAL_S)
            if self._engine is not None and self._engine.died:
                await self._after_death()

    async def _after_death(self) -> None:
        now = time.monotonic()
        window = self._folder.settings.restart_window_s
        self._deaths = [death for death in self._deaths if now - death < window]
        again = bool(self._deaths)
        self._deaths.append(now)
        self._state = "down" if again else "restarting"
        logger.error("the engine died; %s", _REFUSALS[self._state])
        await self._shut_engine_down()
        if again:
            return
        self._counters.add(RESTARTS)
        try:
            await self._open_engine()
        except Exception:
            logger.exception("the engine did not start again")
            self._state = "down"


_REFUSALS: dict[State, str] = {
    "starting": "the engine is starting; try again later",
    "restarting": "the engine died and is being restarted, which takes about half a minute; "
    "try again later",
    "down": "the engine died again soon after its restart, or did not start, and stays down; "
    "restart the server, and see its log",
    "closed": "the model is being unloaded",
}
