"""The shared stages and MediSee's, tiny: a step lowers the loss and moves what it should."""

import random
from functools import partialmethod

import numpy as np
import pytest
import torch

from training.data.batches import collate
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.slices import SliceConfig, SliceSampler
from training.data.views import ViewSampler
from training.networks.medisee import MediSee
from training.stages import medisee as medisee_module
from training.stages.image_encoder import ImageEncoderStage
from training.stages.language_base import LanguageBaseStage
from training.stages.medisee import MediSeeStage

SMALL = {"batch_size": 2, "seed": 5}


@pytest.fixture
def build(tiny_profile, tokenizer, train_template, test_template, monkeypatch):
    for sampler in (SliceSampler, ViewSampler):
        monkeypatch.setattr(sampler, "rarity", partialmethod(sampler.rarity, views=12))
    size = tiny_profile.sam_size
    brains = [SliceSampler(t, SliceConfig(size)) for t in (train_template, test_template)]
    views = [
        ViewSampler(brain, PhantomSampler(PhantomViewConfig(size), held_out=held_out))
        for brain, held_out in zip(brains, (False, True), strict=True)
    ]

    def stage(name, **changed):
        torch.manual_seed(0)
        if name == "image_encoder":
            return ImageEncoderStage(tiny_profile, *views, prompts=2, **SMALL | changed)
        if name == "language_base":
            return LanguageBaseStage(
                tiny_profile, tokenizer, *views, questions=2, **SMALL | changed
            )
        network = MediSee(tiny_profile)
        network.adopt_base_vocabulary()
        return MediSeeStage("medisee", network, tokenizer, *brains, questions=2, **SMALL | changed)

    return stage


STAGES = {
    "the image encoder alone": ("image_encoder", {"decoder_from_step": 10}),
    "image encoder and mask decoder": ("image_encoder", {}),
    "the image side of the base": ("language_base", {"language_from_step": 10}),
    "the base": ("language_base", {"language_from_step": 0}),
    "MediSee's start": ("medisee", {"structure_vectors": torch.randn(16, 16), "align_steps": 10}),
    "MediSee": ("medisee", {}),
    "fine-tuning": ("medisee", {"similarity": True}),
}

LEARNING = {
    "the image encoder alone": {"image_encoder", "dense_head"},
    "image encoder and mask decoder": {
        "image_encoder",
        "dense_head",
        "mask_decoder",
        "structure_embedding",
    },
    "the image side of the base": {"llava_image_encoder", "dense_head"},
    "the base": {"llava_image_encoder", "mllm", "dense_head", "pointer", "box_head"},
    "MediSee's start": {"mllm", "embed_tokens", "fusion", "box_decoder"},
    "MediSee": {"mllm", "embed_tokens", "lm_head", "fusion", "box_decoder", "mask_decoder"},
    "fine-tuning": {"mllm", "embed_tokens", "lm_head", "fusion", "box_decoder", "mask_decoder"},
}
"""Parts with a gradient after one step, by the place in `modules`."""


def part_of(name):
    return name.removeprefix("medisee.").split(".")[0]


@pytest.mark.parametrize("setting", STAGES)
def test_a_few_steps_on_the_same_data_lower_the_loss(build, setting):
    name, changed = STAGES[setting]
    stage = build(name, **changed)
    stage.modules.eval()  # without dropout: one and the same function before and after
    optimizer = torch.optim.Adam([p for p in stage.modules.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(5):
        loss, _ = stage.loss(3)  # its data depend on the step alone
        losses.append(loss.item())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.995 * losses[0], losses


@pytest.mark.parametrize("setting", STAGES)
def test_only_the_right_parts_learn(build, setting):
    name, changed = STAGES[setting]
    stage = build(name, **changed)
    stage.loss(3)[0].backward()
    moved = {
        name
        for name, parameter in stage.modules.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    assert {part_of(name) for name in moved} == LEARNING[setting]
    if stage.modules.keys() == {"medisee"}:
        assert all("lora_" in name for name in moved if part_of(name) == "mllm")
    for name, parameter in stage.modules.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("setting", STAGES)
def test_the_data_of_a_step_depend_on_the_step_alone(build, setting):
    name, changed = STAGES[setting]
    one, other = build(name, **changed), build(name, **changed)
    for stage in (one, other):
        stage.modules.eval()
    other.loss(0)
    torch.manual_seed(77)
    random.seed(78)
    assert one.loss(4)[0].item() == pytest.approx(other.loss(4)[0].item(), rel=1e-5)
    assert one.loss(4)[0].item() != one.loss(5)[0].item()


REGIONS = {f"{region}_{kind}" for region in ("brain", "abdomen") for kind in ("dense", "prompted")}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("image_encoder", REGIONS),
        ("language_base", {"text", "pointing", "box"}),
        ("medisee", {"text", "bce", "giou", "dice", "box_iou"}),
    ],
)
@torch.no_grad()
def test_an_evaluation_repeats_itself(build, name, keys):
    stage = build(name)
    stage.modules.eval()
    figures = stage.evaluate()
    assert figures.keys() == keys
    for key, value in stage.evaluate().items():
        assert value == pytest.approx(figures[key], rel=1e-4), key
    for key in keys & {"dice", "box_iou", *REGIONS}:
        assert 0 <= figures[key] <= 1


@torch.no_grad()
def test_every_second_question_of_the_fine_tuning_names_the_structure_before_it(build, monkeypatch):
    asked = []
    generate = medisee_module.generate

    def spy(structure, **arguments):
        asked.append((structure.name, arguments["kind"]))
        return generate(structure, **arguments)

    monkeypatch.setattr(medisee_module, "generate", spy)
    build("medisee", similarity=True).loss(0)
    assert len(asked) == 4
    for (student, _), (teacher, kind) in zip(asked[0::2], asked[1::2], strict=True):
        assert (teacher, kind) == (student, "direct")


@torch.no_grad()
def test_the_stage_reads_the_states_that_the_server_reads(build, tokenizer, monkeypatch):
    # Packed and with the whole answer behind it, against `MediSee.answer`, one question alone.
    stage = build("medisee")
    stage.modules.eval()
    prompts, seen = [], []
    write_prompt = medisee_module.medisee_prompt
    monkeypatch.setattr(
        medisee_module,
        "medisee_prompt",
        lambda *arguments: prompts.append(write_prompt(*arguments)) or prompts[-1],
    )
    stage.network.fusion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    views = [stage.sampler.draw(np.random.default_rng(seed)) for seed in range(2)]
    batch = collate(views, stage.image_size)
    stage._losses(batch, "train", random.Random(1), aligning=False)
    assert len(prompts) == 4
    packed = seen[0].float()
    for index, ids in enumerate(prompts):
        row, size = index // 2, tuple(views[index // 2].image.shape)
        answer = stage.network.answer(
            batch.sam_pixels[row], batch.clip_pixels[row], ids, size, size
        )
        # The stage computes in bfloat16.
        difference = (packed[index] - answer.hidden_states).norm() / answer.hidden_states.norm()
        assert difference < 0.05
