"""Command: train the demo weights, stage by stage, resuming where a run was stopped.

`python -m training.run` runs every stage and writes the weights to `training/weights/demo`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS
from training.context_cache import TEXTS, build_cache, load_context
from training.data.corpus import corpus
from training.data.organs import ORGANS
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.slices import SliceConfig, SliceSampler
from training.data.structures import STRUCTURES
from training.data.templates import TEST_TEMPLATE, TRAIN_TEMPLATE, TemplateName, load_template
from training.data.tokenizer import train_tokenizer
from training.data.views import ViewSampler
from training.networks.mediround import MediRound
from training.networks.medisee import MediSee
from training.networks.organseg import OrganSeg
from training.networks.profiles import Profile, demo_profile
from training.networks.system import System
from training.stages.image_encoder import ImageEncoderStage
from training.stages.language_base import LanguageBaseStage
from training.stages.mediround import MediRoundStage
from training.stages.mediround_jcm import MediRoundJcmStage
from training.stages.medisee import MediSeeStage
from training.stages.organseg import OrganSegStage
from training.trainer import Schedule, Stage, Trainer
from training.weights_folder import S, load_base_state, save_weights

WEIGHTS = Path(__file__).parent / "weights" / "demo"
"""Folder of the committed demo weights."""

TOKENIZER_LINES = 40_000


@dataclass(frozen=True)
class Setting:
    """What every stage is built from."""

    profile: Profile
    train: ViewSampler
    held_out: ViewSampler
    weights: Path
    runs: Path


def main(argv: list[str] | None = None) -> int:
    """Run the stages; the last line of the output is one JSON object of held-out figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--stage", choices=list(STAGES), action="append", help="only this one; repeatable"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints and logs")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the result goes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)

    setting = Setting(
        profile=demo_profile(),
        train=_views(TRAIN_TEMPLATE, held_out=False),
        held_out=_views(TEST_TEMPLATE, held_out=True),
        weights=arguments.weights,
        runs=arguments.runs,
    )
    figures = {}
    for name in arguments.stage or STAGES:
        stage, schedule = STAGES[name](setting)
        figures[name] = Trainer(stage, schedule, setting.runs).run()
        for system in stage.modules.values():
            if isinstance(system, System):
                save_weights(system, setting.weights)
    print(json.dumps(figures))
    return 0


def _image_encoder(setting: Setting) -> tuple[Stage, Schedule]:
    stage = ImageEncoderStage(
        setting.profile, setting.train, setting.held_out, decoder_from_step=1200
    )
    return stage, Schedule(steps=2900, learning_rate=1e-3)


def _language_base(setting: Setting) -> tuple[Stage, Schedule]:
    stage = LanguageBaseStage(setting.profile, _tokenizer(setting), setting.train, setting.held_out)
    return stage, Schedule(steps=3800, learning_rate=1e-3)


def _medisee(setting: Setting) -> tuple[Stage, Schedule]:
    first, network = _started(setting, MediSee(setting.profile))
    # The box head that taught the base to point is a good start for the box decoder.
    second = _trained(setting, "language_base")
    network.box_decoder.load_state_dict(_part(second, "box_head"))
    stage = MediSeeStage(
        "medisee",
        network,
        _tokenizer(setting, MEDISEE_ADDED_TOKENS),
        setting.train.brain,
        setting.held_out.brain,
        seed=2000,
        structure_vectors=first["structure_embedding.weight"],
        align_steps=80,
    )
    return stage, Schedule(steps=700, learning_rate=1e-3, weight_decay=0.0)


def _medisee_finetuned(setting: Setting) -> tuple[Stage, Schedule]:
    network = MediSee(setting.profile)
    network.load_state_dict(_part(_trained(setting, "medisee"), "medisee"))
    stage = MediSeeStage(
        "medisee_finetuned",
        network,
        _tokenizer(setting, MEDISEE_ADDED_TOKENS),
        setting.train.brain,
        setting.held_out.brain,
        seed=3000,
        similarity=True,
    )
    schedule = Schedule(steps=100, learning_rate=3e-4, weight_decay=0.0, warmup_steps=20)
    return stage, schedule


def _organseg(setting: Setting) -> tuple[Stage, Schedule]:
    first, network = _started(setting, OrganSeg(setting.profile))
    organs = slice(len(STRUCTURES), len(STRUCTURES) + len(ORGANS))
    stage = OrganSegStage(
        network,
        _tokenizer(setting),
        setting.train.abdomen,
        setting.held_out.abdomen,
        load_context(build_cache(TEXTS, setting.weights / "organseg_context")),
        seed=6000,
        structure_vectors=first["structure_embedding.weight"][organs],
        align_steps=120,
        questions=6,
    )
    return stage, Schedule(steps=2600, learning_rate=1e-3, weight_decay=0.0)


def _mediround(setting: Setting) -> tuple[Stage, Schedule]:
    first, network = _started(setting, MediRound(setting.profile))
    stage = MediRoundStage(
        "mediround",
        network,
        _tokenizer(setting, MEDIROUND_ADDED_TOKENS),
        setting.train,
        setting.held_out,
        seed=4000,
        structure_vectors=first["structure_embedding.weight"],
        align_steps=1400,
    )
    return stage, Schedule(steps=1680, learning_rate=1e-3, weight_decay=0.0)


def _mediround_jcm(setting: Setting) -> tuple[Stage, Schedule]:
    network = MediRound(setting.profile)
    network.load_state_dict(_part(_trained(setting, "mediround"), "mediround"))
    stage = MediRoundJcmStage(
        "mediround_jcm",
        network,
        _tokenizer(setting, MEDIROUND_ADDED_TOKENS),
        setting.train,
        setting.held_out,
        seed=5000,
        own_references=True,
    )
    return stage, Schedule(steps=600, learning_rate=1e-3, weight_decay=0.0)


def _started(setting: Setting, network: S) -> tuple[dict[str, Tensor], S]:
    """A system with what the first two stages left, and the first stage's whole state."""
    first, second = (_trained(setting, name) for name in ("image_encoder", "language_base"))
    network.image_encoder.load_state_dict(_part(first, "image_encoder"))
    network.mask_decoder.load_state_dict(_part(first, "mask_decoder"))
    network.llava_image_encoder.load_state_dict(_part(second, "llava_image_encoder"))
    load_base_state(network, _part(second, "mllm"))
    if network.added_tokens:
        network.adopt_base_vocabulary()
    return first, network


STAGES: dict[str, Callable[[Setting], tuple[Stage, Schedule]]] = {
    "image_encoder": _image_encoder,
    "language_base": _language_base,
    "medisee": _medisee,
    "medisee_finetuned": _medisee_finetuned,
    "organseg": _organseg,
    "mediround": _mediround,
    "mediround_jcm": _mediround_jcm,
}


def _views(template: TemplateName, *, held_out: bool) -> ViewSampler:
    return ViewSampler(
        SliceSampler(load_template(template), SliceConfig()),
        PhantomSampler(PhantomViewConfig(), held_out=held_out),
    )


def _trained(setting: Setting, stage: str) -> dict[str, Tensor]:
    """Weights a finished stage left in its checkpoint."""
    checkpoint = setting.runs / stage / "checkpoint.pt"
    if not checkpoint.exists():
        raise FileNotFoundError(
            f"{checkpoint} is missing; train it first: python -m training.run --stage {stage}"
        )
    return torch.load(checkpoint, weights_only=True)["modules"]


def _part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _tokenizer(setting: Setting, added_tokens: tuple[str, ...] = ()) -> LlavaTokenizer:
    file = setting.weights / "tokenizer.model"
    if not file.exists():
        lines = list(corpus(TOKENIZER_LINES, seed=0))
        # The template's own words get pieces of their own.
        lines += ["[INST] ", " [/INST] "] * (TOKENIZER_LINES // 20)
        train_tokenizer(lines, setting.profile.mistral.vocab_size, file)
    return LlavaTokenizer(file, added_tokens)


if __name__ == "__main__":
    raise SystemExit(main())
