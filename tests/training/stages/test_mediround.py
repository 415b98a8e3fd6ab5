"""MediRound's two stages at a tiny size, against the network's own plain reference."""

from copy import deepcopy
from functools import partialmethod

import numpy as np
import pytest
import torch

from serving.llava_prompt import LlavaTokenizer
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.slices import SliceConfig, SliceSampler
from training.data.views import TARGETS, ViewSampler
from training.networks.mediround import BETA, MediRound, Question
from training.run import WEIGHTS
from training.stages import mediround as module
from training.stages.mediround import MediRoundStage, shown_masks
from training.stages.mediround_jcm import MediRoundJcmStage

SIDE = 64


@pytest.fixture(scope="module")
def samplers(train_template, test_template):
    return [
        ViewSampler(
            SliceSampler(template, SliceConfig(SIDE)),
            PhantomSampler(PhantomViewConfig(long_side=SIDE), held_out=held_out),
        )
        for template, held_out in ((train_template, False), (test_template, True))
    ]


@pytest.fixture
def build(tiny_profile, samplers, monkeypatch):
    monkeypatch.setattr(ViewSampler, "rarity", partialmethod(ViewSampler.rarity, views=12))
    monkeypatch.setattr(module, "TRAINED_ROUNDS", (3, 3))
    monkeypatch.setattr(module, "HELD_OUT_ROUNDS", 2)
    tokenizer = LlavaTokenizer(WEIGHTS / "tokenizer.model", MEDIROUND_ADDED_TOKENS)
    profile = deepcopy(tiny_profile)
    profile.mistral.vocab_size = tokenizer.processor.get_piece_size()

    def stage(kind, **changed):
        torch.manual_seed(0)
        network = MediRound(profile)
        network.adopt_base_vocabulary()
        # The adapter's second half starts at zero, and so would everything it does.
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        built = kind("stage", network, tokenizer, *samplers, seed=5, **{"batch_size": 2} | changed)
        built.modules.eval()  # without dropout
        return built

    return stage


STAGES = {
    "the start": (
        MediRoundStage,
        {"structure_vectors": torch.randn(len(TARGETS), 16), "align_steps": 10},
        {"mllm", "embed_tokens", "box_encoder", "text_projection"},
    ),
    "MediRound": (
        MediRoundStage,
        {},
        {"mllm", "embed_tokens", "lm_head", "box_encoder", "text_projection", "mask_decoder"},
    ),
    "the JCM": (MediRoundJcmStage, {}, {"jcm"}),
    "the JCM with own references": (MediRoundJcmStage, {"own_references": True}, {"jcm"}),
}


@pytest.mark.parametrize("setting", STAGES)
def test_a_few_steps_on_the_same_data_lower_the_loss_and_move_the_right_parts(build, setting):
    kind, changed, learning = STAGES[setting]
    stage = build(kind, **changed)
    optimizer = torch.optim.Adam([p for p in stage.modules.parameters() if p.requires_grad], 3e-3)
    losses, moved = [], set()
    for _ in range(5):
        loss, figures = stage.loss(3)  # its data depend on the step alone
        losses.append(loss.item())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        moved |= {
            name.removeprefix("mediround.")
            for name, parameter in stage.modules.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().max() > 0
        }
        optimizer.step()
    assert losses[-1] < 0.995 * losses[0], losses
    assert {name.split(".")[0] for name in moved} == learning
    assert all("lora_" in name for name in moved if name.startswith("mllm"))
    assert all(np.isfinite(value) for value in figures.values())


@pytest.mark.parametrize("kind", [MediRoundStage, MediRoundJcmStage])
def test_the_data_of_a_step_depend_on_the_step_alone(build, kind):
    one, other = build(kind), build(kind)
    other.loss(0)
    torch.manual_seed(77)
    assert one.loss(4)[0].item() == pytest.approx(other.loss(4)[0].item(), rel=1e-5)
    assert one.loss(4)[0].item() != one.loss(5)[0].item()


@pytest.mark.parametrize("kind", [MediRoundStage, MediRoundJcmStage])
@torch.no_grad()
def test_an_evaluation_tells_dice_per_round_and_repeats_itself(build, kind, monkeypatch):
    draw = module.Conversing.drawn_held_out
    monkeypatch.setattr(
        module.Conversing, "drawn_held_out", lambda run, batches, count: draw(run, 1, 2)
    )
    stage = build(kind)
    figures = stage.evaluate()
    by_round = {"dice", "dice_round_1", "dice_round_2"}
    if kind is MediRoundJcmStage:
        by_round |= {f"{name}_without_jcm" for name in by_round} | {"judge_error", "corrected"}
    assert figures.keys() == by_round
    assert all(0 <= value <= 1 for value in figures.values())
    mean = (figures["dice_round_1"] + figures["dice_round_2"]) / 2
    assert figures["dice"] == pytest.approx(mean)
    for key, value in stage.evaluate().items():
        assert value == pytest.approx(figures[key], rel=1e-4), key


def image_of(view):
    return view.image[..., None].expand(-1, -1, 3).numpy()


@torch.no_grad()
def test_teacher_forcing_reads_what_the_plain_reference_reads(build):
    # All rounds at once, padded, with the answers behind them and true masks as references,
    # against one full pass per round.
    stage = build(MediRoundStage)
    run = stage.conversing
    conversations = run.drawn(1, 2)
    masks = shown_masks(conversations, np.random.default_rng(1))
    views = conversations.views.views
    encoded = run.encode(conversations.views)
    tokens = run.reference_tokens(views, masks)
    hidden, _, positions = run.read(conversations.talks, encoded.image_rows, tokens)
    embeddings = run.text_embeddings(hidden, positions)
    logits = run.decode(views, encoded.image_embedding, embeddings)
    assert sum(map(len, masks)) > 2
    for row, (view, talk) in enumerate(zip(views, conversations.talks, strict=True)):
        shown = iter(masks[row])
        questions = [
            Question(one.prompt, [next(shown).numpy() for _ in one.references]) for one in talk
        ]
        answers = stage.network.answer_conversation(
            run.tokenizer, image_of(view), questions, judge="never"
        )
        for number, answer in enumerate(answers):
            # The stage computes in bfloat16.
            assert near(embeddings[row, number], answer.text_embedding[0])
            assert near(logits[row][number], answer.mask_logits)


@pytest.mark.parametrize("judged", [False, True])
@torch.no_grad()
def test_answering_round_by_round_is_the_plain_reference(build, judged):
    stage = build(MediRoundJcmStage)
    run = stage.conversing
    conversations = run.drawn(2, 3)
    encoded = run.encode(conversations.views)
    # Half of the scores, of the masks without correction, on either side of the threshold.
    last = stage.network.jcm.judge[4]
    torch.nn.init.normal_(last.weight, std=30.0)
    scores = stage.network.jcm.judge(run.answer(conversations, encoded, judged=False)[0])
    last.bias += np.log(BETA / (1 - BETA)) - scores.median()
    embeddings, logits = run.answer(conversations, encoded, judged=judged)
    compared = []
    for row, (view, talk) in enumerate(
        zip(conversations.views.views, conversations.talks, strict=True)
    ):
        # The masks it made, given as drawn ones: a pixel that flips in bfloat16 would otherwise
        # change what later rounds see.
        made = (logits[row] > 0).numpy()
        questions = [Question(one.prompt, [made[r - 1] for r in one.references]) for one in talk]
        answers = stage.network.answer_conversation(
            run.tokenizer, image_of(view), questions, judge="every" if judged else "never"
        )
        for number, answer in enumerate(answers):
            assert near(embeddings[row, number], answer.text_embedding[0])
            if abs(answer.quality - BETA) > 0.05:
                assert near(logits[row][number], answer.mask_logits)
                compared.append(answer.corrected)
    assert set(compared) == ({True, False} if judged else {False})


def test_disturbed_masks_stay_close_to_the_true_ones(build):
    stage = build(MediRoundStage)
    changed = overlap = 0
    for step in range(6):
        conversations = stage.conversing.drawn(step, 2)
        shown = shown_masks(conversations, np.random.default_rng(step))
        for truth, talk, masks in zip(
            conversations.truth(), conversations.talks, shown, strict=True
        ):
            references = [reference for one in talk for reference in one.references]
            for reference, mask in zip(references, masks, strict=True):
                true = truth[reference - 1]
                assert mask.any()
                edge = torch.nn.functional.max_pool2d(true[None].float(), 5, 1, 2)[0] > 0
                assert not (mask & ~edge).any()
                changed += int(not mask.equal(true))
                overlap += 1
    assert 0.2 * overlap < changed < 0.8 * overlap


def near(one, other):
    return (one.float() - other).norm() / other.norm() < 0.05
