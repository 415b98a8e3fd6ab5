import json

import pytest
import torch
from torch import nn

from training.trainer import Schedule, Trainer

STEPS = 9


class Toy:
    """Fits a line; its dropout draws from torch's own generator, as the real stages' does."""

    name = "toy"

    def __init__(self, fail_at=None, not_finite_at=None):
        torch.manual_seed(11)
        self.modules = nn.ModuleDict(
            {
                "line": nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.Linear(8, 1)),
                "frozen": nn.Linear(4, 4).requires_grad_(False),
            }
        )
        self.fail_at, self.not_finite_at = fail_at, not_finite_at
        self.steps_seen = []
        self.training_at_evaluation = []

    def loss(self, step):
        if step == self.fail_at:
            raise KeyboardInterrupt
        self.steps_seen.append(step)
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 4, generator=generator)
        y = self.modules["line"](self.modules["frozen"](x))
        loss = (y[:, 0] - x.sum(dim=1)).square().mean()
        if step == self.not_finite_at:
            loss = loss * torch.nan
        return loss, {"size": float(y.detach().abs().mean())}

    def evaluate(self):
        self.training_at_evaluation.append(self.modules.training)
        torch.rand(3)  # an evaluation may draw, too
        return {"weight": float(self.modules["line"][0].weight.sum())}


def schedule(**changed):
    values = {
        "steps": STEPS,
        "learning_rate": 1e-2,
        "warmup_steps": 3,
        "log_every": 2,
        "checkpoint_every": 2,
        "evaluate_every": 4,
    }
    return Schedule(**values | changed)


def weights(stage):
    return {name: tensor.clone() for name, tensor in stage.modules.state_dict().items()}


@pytest.mark.parametrize("fail_at", [1, 4, 5, 8])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, fail_at):
    whole = Toy()
    expected = Trainer(whole, schedule(), tmp_path / "whole").run()

    interrupted = Toy(fail_at=fail_at)
    with pytest.raises(KeyboardInterrupt):
        Trainer(interrupted, schedule(), tmp_path / "parts").run()
    torch.manual_seed(999)  # another process, another state
    resumed = Toy()
    figures = Trainer(resumed, schedule(), tmp_path / "parts").run()

    assert resumed.steps_seen == list(range(fail_at // 2 * 2, STEPS))
    assert figures == expected
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name


def test_a_finished_run_does_nothing_more_when_started_again(tmp_path):
    first = Toy()
    figures = Trainer(first, schedule(), tmp_path).run()
    again = Toy()
    assert Trainer(again, schedule(), tmp_path).run() == figures
    assert again.steps_seen == []


def test_a_longer_schedule_goes_on_from_the_last_step(tmp_path):
    Trainer(Toy(), schedule(), tmp_path).run()
    longer = Toy()
    Trainer(longer, schedule(steps=12), tmp_path).run()
    assert longer.steps_seen == [9, 10, 11]


def test_training_learns_and_leaves_frozen_parameters_alone(tmp_path):
    stage = Toy()
    before = weights(stage)
    Trainer(stage, schedule(steps=60, learning_rate=3e-2), tmp_path).run()
    after = weights(stage)
    assert torch.equal(after["frozen.weight"], before["frozen.weight"])
    assert not torch.equal(after["line.0.weight"], before["line.0.weight"])
    stage.modules.eval()
    fresh = Toy()
    fresh.modules.eval()
    assert stage.loss(1000)[0] < 0.7 * fresh.loss(1000)[0]


def test_what_a_run_leaves_behind(tmp_path):
    stage = Toy()
    figures = Trainer(stage, schedule(), tmp_path).run()
    folder = tmp_path / "toy"
    assert json.loads((folder / "metrics.json").read_text()) == figures
    assert (folder / "checkpoint.pt").is_file()
    assert not list(folder.glob("*.partial"))
    assert list(folder.glob("events.out.tfevents*"))
    # Evaluated at steps 4 and 8 and at the end, each time in evaluation mode; then it trains on.
    assert stage.training_at_evaluation == [False] * 3
    assert stage.modules.training


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path):
    stage = Toy(not_finite_at=5)
    with pytest.raises(FloatingPointError, match="toy: loss is nan at step 5"):
        Trainer(stage, schedule(), tmp_path).run()
    assert all(torch.isfinite(tensor).all() for tensor in weights(stage).values())
    assert torch.load(tmp_path / "toy" / "checkpoint.pt")["step"] == 4


def test_the_rate_rises_linearly_and_then_falls_linearly_to_zero():
    plan = Schedule(steps=1100, learning_rate=1.0, warmup_steps=100)
    assert [plan.rate_at(step) for step in (0, 49, 99)] == pytest.approx([0.01, 0.5, 1.0])
    assert [plan.rate_at(step) for step in (100, 600, 1099)] == pytest.approx([1.0, 0.5, 0.001])
    assert plan.rate_at(1100) == plan.rate_at(5000) == 0
    rates = [plan.rate_at(step) for step in range(1100)]
    assert max(rates) == 1
    assert sorted(rates[:100]) == rates[:100]
    assert sorted(rates[100:], reverse=True) == rates[100:]


def test_a_schedule_without_warm_up_starts_at_the_full_rate():
    assert Schedule(steps=10, learning_rate=1.0, warmup_steps=0).rate_at(0) == 1
    assert Schedule(steps=5, learning_rate=1.0, warmup_steps=5).rate_at(4) == 1


def test_the_optimiser_gets_the_rate_of_each_step(tmp_path, monkeypatch):
    rates = []
    trainer = Trainer(Toy(), schedule(), tmp_path)
    step = trainer.optimizer.step
    monkeypatch.setattr(
        trainer.optimizer,
        "step",
        lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]) or step(),
    )
    trainer.run()
    assert rates == pytest.approx([1e-2 * schedule().rate_at(step) for step in range(STEPS)])
    assert trainer.optimizer.param_groups[0]["betas"] == (0.9, 0.95)


def test_gradients_are_clipped_by_their_common_norm(tmp_path, monkeypatch):
    norms = []
    stage = Toy()
    trainer = Trainer(stage, schedule(clip_norm=0.1), tmp_path)
    step = trainer.optimizer.step

    def observed():
        gradients = [p.grad.flatten() for p in stage.modules.parameters() if p.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))
        step()

    monkeypatch.setattr(trainer.optimizer, "step", observed)
    trainer.run()
    assert max(norms) == pytest.approx(0.1, rel=1e-3)
