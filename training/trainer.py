"""Runs one stage of training: schedule, progress, logs, checkpoints, resumption.

What is learned stands in the stages; this file knows only that a stage has modules and a loss.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter


class Stage(Protocol):
    """What the trainer needs of a stage."""

    name: str
    modules: nn.ModuleDict
    """Everything a checkpoint holds; parameters with `requires_grad` are trained."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of one step on fresh data, and figures to log. Data depend on `step` alone."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Length and optimiser of a stage."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 100
    """Linear warm-up; afterwards the rate falls linearly to zero (the paper's WarmupDecayLR)."""
    clip_norm: float = 1.0
    log_every: int = 20
    checkpoint_every: int = 200
    evaluate_every: int = 500

    def rate_at(self, step: int) -> float:
        """Factor on the learning rate, in [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return max(0.0, (self.steps - step) / max(1, self.steps - self.warmup_steps))


class Trainer:
    """Trains a stage, resuming from its last checkpoint.

    Args:
        stage: What to train.
        schedule: How long and how fast.
        folder: Where the checkpoint, TensorBoard logs and `metrics.json` of the stage go.
    """

    def __init__(self, stage: Stage, schedule: Schedule, folder: Path) -> None:
        self.stage, self.schedule = stage, schedule
        self.folder = folder / stage.name
        self.checkpoint = self.folder / "checkpoint.pt"
        parameters = [p for p in stage.modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=schedule.learning_rate,
            betas=schedule.betas,
            weight_decay=schedule.weight_decay,
        )
        self.step = 0
        if self.checkpoint.exists():
            self._resume()

    def run(self) -> dict[str, float]:
        """Train to the last step and return the final held-out figures."""
        schedule, writer = self.schedule, SummaryWriter(str(self.folder))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        started, first = time.monotonic(), self.step
        totals: dict[str, float] = {}
        while self.step < schedule.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = schedule.learning_rate * schedule.rate_at(self.step)
            loss, figures = self.stage.loss(self.step)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"stage {self.stage.name}: loss is {loss.item()} at step {self.step}; "
                    f"lower the learning rate and resume from {self.checkpoint}"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
            self.optimizer.step()
            self.step += 1

            for key, value in {"loss": loss.item(), **figures}.items():
                totals[key] = totals.get(key, 0.0) + value / schedule.log_every
            if self.step % schedule.log_every == 0:
                seconds = (time.monotonic() - started) / (self.step - first)
                remaining_min = seconds * (schedule.steps - self.step) / 60
                shown = "  ".join(f"{key} {value:.3f}" for key, value in totals.items())
                print(
                    f"{self.stage.name} {self.step}/{schedule.steps}  {shown}  "
                    f"{seconds:.2f} s/step  {remaining_min:.0f} min left",
                    flush=True,
                )
                for key, value in totals.items():
                    writer.add_scalar(f"train/{key}", value, self.step)
                totals = {}
            if self.step % schedule.evaluate_every == 0 and self.step < schedule.steps:
                self._evaluate(writer)
            if self.step % schedule.checkpoint_every == 0:
                self._save()
        self._save()
        final = self._evaluate(writer)
        (self.folder / "metrics.json").write_text(json.dumps(final, indent=1) + "\n")
        writer.close()
        return final

    def _evaluate(self, writer: SummaryWriter) -> dict[str, float]:
        self.stage.modules.eval()
        with torch.no_grad():
            figures = self.stage.evaluate()
        self.stage.modules.train()
        for key, value in figures.items():
            writer.add_scalar(f"held_out/{key}", value, self.step)
        shown = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
        print(f"{self.stage.name} {self.step}/{self.schedule.steps}  held out: {shown}", flush=True)
        return figures

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "step": self.step,
                "modules": self.stage.modules.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            partial,
        )
        partial.replace(self.checkpoint)  # a kill in the middle leaves the last good one

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.stage.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]
        print(f"{self.stage.name}: resumed at step {self.step} from {self.checkpoint}", flush=True)
