"""Organ-Seg's stage at a tiny size: what learns, what is asked, and what is measured."""

import random
from copy import deepcopy

import numpy as np
import pytest
import torch

from serving.llava_prompt import LlavaTokenizer
from training.context_cache import CONTEXT_WIDTH, Context
from training.data.batches import collate
from training.data.organs import ORGANS
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.networks.organseg import OrganSeg
from training.organseg_loss import OrganSegWeights
from training.run import WEIGHTS
from training.stages import organseg as stage_module
from training.stages.organseg import OrganSegStage

NAMES = tuple(organ.name for organ in ORGANS)


def context_of(names):
    matrix = torch.randn(len(names) + 3, CONTEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    return Context(torch.nn.functional.normalize(matrix, dim=-1), names, "tiny")


@pytest.fixture
def build(tiny_profile, monkeypatch):
    monkeypatch.setattr(stage_module, "EVALUATION_VIEWS", (2, 4))
    tokenizer = LlavaTokenizer(WEIGHTS / "tokenizer.model")
    profile = deepcopy(tiny_profile)
    profile.mistral.vocab_size = tokenizer.vocabulary_size
    views = PhantomViewConfig(long_side=profile.sam_size, min_area_px=4)

    def stage(context=None, **changed):
        torch.manual_seed(0)
        return OrganSegStage(
            OrganSeg(profile),
            tokenizer,
            PhantomSampler(views, held_out=False),
            PhantomSampler(views, held_out=True),
            context or context_of(NAMES),
            **{"seed": 5, "batch_size": 2, "questions": 4} | changed,
        )

    return stage


SETTINGS = {
    "the start": {"structure_vectors": torch.randn(13, 16), "align_steps": 10},
    "as published": {},
    "with BCE": {"weights": OrganSegWeights(dice=0.5, bce=2.0)},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_few_steps_on_the_same_data_lower_the_loss_and_every_term(build, setting):
    stage = build(**SETTINGS[setting])
    stage.modules.eval()  # without dropout: one and the same function before and after
    optimizer = torch.optim.Adam([p for p in stage.modules.parameters() if p.requires_grad], 3e-3)
    history = []
    for _ in range(12):
        loss, figures = stage.loss(3)  # its data depend on the step alone
        history.append({"loss": loss.item(), **figures})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    last = "alignment" if setting == "the start" else "mask"
    assert history[0].keys() == {"loss", "class", "presence", "box", last, "box_iou"}
    for term in history[0].keys() - {"box_iou", "mask"}:
        assert history[-1][term] < 0.995 * history[0][term], term


def test_adapter_and_extractors_learn_and_nothing_else(build):
    stage = build()
    stage.loss(3)[0].backward()
    learning = {n for n, p in stage.network.named_parameters() if p.grad is not None}
    assert learning == {n for n, p in stage.network.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in learning} == {"mllm", "extractors"}
    assert all("lora_" in name for name in learning if name.startswith("mllm"))
    extractors = {n for n in learning if n.startswith("extractors")}
    assert len(extractors) == len(list(stage.network.extractors.parameters()))
    for name, parameter in stage.network.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_the_data_of_a_step_depend_on_the_step_alone(build):
    one, other = build(), build()
    for stage in (one, other):
        stage.modules.eval()
    other.loss(0)
    torch.manual_seed(77)
    random.seed(78)
    assert one.loss(4)[0].item() == pytest.approx(other.loss(4)[0].item(), rel=1e-5)
    assert one.loss(4)[0].item() != one.loss(5)[0].item()


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_asked_for_is_shown_wholly_missing_or_no_organ(build, split, monkeypatch):
    made_up = []
    monkeypatch.setattr(
        stage_module, "unknown_subject", lambda rng: made_up.append(1) or "the dorvan gland"
    )
    stage = build(questions=12)
    views, asked = stage._draw(stage.sampler, 8, np.random.default_rng(0), random.Random(0), split)
    seen = set()
    for view, questions in zip(views, asked, strict=True):
        assert questions[0].premise == "found"
        for one in questions:
            seen.add(one.premise)
            if one.premise == "irrelevant":
                assert one.organ == 13
            else:
                area = view.masks[one.organ].sum()
                assert area >= 4 if one.premise == "found" else area == 0
    assert seen == {"found", "absent", "irrelevant"}
    assert bool(made_up) == (split == "train")


@torch.no_grad()
def test_figures_are_those_of_outcomes_counted_by_hand(build, monkeypatch):
    stage = build()
    stage.modules.eval()
    asked, reads = [], []
    read = OrganSegStage._read

    def known(self, batch, questions):
        """Organs 0 to 9 are understood and seen, 10 is not seen, 11 is refused, 12 is organ 0."""
        answer = read(self, batch, questions)
        flat = [one for row in questions for one in row]
        best = [{11: 13, 12: 0}.get(one.organ, one.organ) for one in flat]
        similarities = torch.nn.functional.one_hot(torch.tensor(best), 14).float()
        presence = torch.tensor([0.05 if one.organ == 10 else 0.6 for one in flat])
        asked.extend(flat)
        reads.append(answer)
        return type(answer)(answer.seg_embedding, answer.boxes, similarities, presence)

    monkeypatch.setattr(OrganSegStage, "_read", known)
    everything = torch.full((1, 1, 1, 1), 9.0)
    monkeypatch.setattr(
        OrganSegStage,
        "_decode",
        lambda self, pixels, rows, *_: everything.expand(len(rows), 1, 4, 4),
    )
    figures = stage.evaluate()

    def share(values):
        return pytest.approx(sum(values) / len(values))

    found = [one for one in asked if one.premise == "found"]
    absent = [one for one in asked if one.premise == "absent"]
    irrelevant = [one for one in asked if one.premise == "irrelevant"]
    assert figures["wrongly_refused"] == share([one.organ in (10, 11) for one in found])
    assert figures["organ_accuracy"] == share([one.organ < 11 for one in found + absent])
    assert figures["absent_rejected"] == share([one.organ in (10, 11) for one in absent])
    assert figures["irrelevant_rejected"] == 1
    rejected = [one.organ in (10, 11, 13) for one in absent + irrelevant]
    assert figures["false_premise_rejected"] == share(rejected)
    assert 0 < figures["dice"] < 1


@torch.no_grad()
def test_an_evaluation_repeats_itself(build):
    stage = build()
    stage.modules.eval()
    figures = stage.evaluate()
    assert stage.evaluate() == pytest.approx(figures, rel=1e-4)
    assert all(0 <= value <= 1 for value in figures.values())


@torch.no_grad()
def test_the_stage_reads_what_the_server_reads(build):
    # Packed with other questions and in bfloat16, against `OrganSeg.answer`, one question alone.
    stage = build()
    stage.modules.eval()
    views, asked = stage._draw(stage.sampler, 2, np.random.default_rng(1), random.Random(1), "test")
    batch = collate(views, 64, [True, True])
    read = stage._read(batch, asked)
    for number, one in enumerate(question for row in asked for question in row):
        row = number // 4
        ids = stage_module.organseg_prompt(stage.tokenizer, one.text, stage.template)
        shape = tuple(views[row].image.shape)
        answer = stage.network.answer(
            batch.sam_pixels[row], batch.clip_pixels[row], ids, shape, stage.context
        )
        torch.testing.assert_close(
            read.similarities[number], answer.similarities, rtol=0, atol=0.01
        )
        torch.testing.assert_close(read.boxes[number], answer.box_cxcywh, rtol=0, atol=0.01)
        torch.testing.assert_close(read.presence[number], answer.presence, rtol=0, atol=0.01)


def test_rows_of_the_cache_are_found_by_name_and_further_organs_do_no_harm(build):
    stage = build(context_of(("appendix", *reversed(NAMES))))
    assert stage.rows.tolist() == [*range(13, 0, -1), 14]
    assert torch.isfinite(stage.loss(0)[0])


def test_a_cache_that_lacks_an_organ_is_refused(build):
    with pytest.raises(ValueError, match="context tiny has no row of 'left kidney'"):
        build(context_of(NAMES[:-1]))
