"""The network in one piece, against formulas in plain torch and the same conversation by hand."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from serving.llava_prompt import LlavaTokenizer
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS, Turn, conversation_prompt
from serving.preprocessing import clip_frame, sam_frame
from serving.reference_region import reference_region
from training.networks.mediround import (
    BoxEncoder,
    JudgmentCorrection,
    MediRound,
    Question,
    TextProjection,
)
from training.networks.medisee import resize_logits
from training.networks.profiles import full_profile
from training.run import WEIGHTS


@pytest.fixture(scope="module")
def tokenizer():
    return LlavaTokenizer(WEIGHTS / "tokenizer.model", MEDIROUND_ADDED_TOKENS)


@pytest.fixture(scope="module")
def network(tiny_profile, tokenizer):
    torch.manual_seed(0)
    profile = deepcopy(tiny_profile)
    profile.mistral.vocab_size = tokenizer.processor.get_piece_size()
    network = MediRound(profile).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name or name.startswith(("jcm", "box_encoder")):
                torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(3)
    return rng.integers(1, 256, (48, 60, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def drawn():
    mask = np.zeros((48, 60), bool)
    mask[10:30, 20:40] = True
    return mask


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))  # the exact one


def three_layers(layers, x):
    one, _, two, _, three = layers
    return three(gelu(two(gelu(one(x)))))


@torch.no_grad()
def test_judge_and_corrector_are_three_layers_without_a_residual(tiny_profile):
    torch.manual_seed(1)
    jcm = JudgmentCorrection(tiny_profile)
    x = torch.randn(5, 2, 1, 16)
    quality, corrected = jcm(x)
    assert quality.shape == (5, 2)
    torch.testing.assert_close(quality, torch.sigmoid(three_layers(jcm.judge, x))[..., 0, 0])
    torch.testing.assert_close(corrected, three_layers(jcm.corrector, x))


@torch.no_grad()
def test_projection_and_box_encoder_are_their_formulas(tiny_profile):
    projection, encoder = TextProjection(tiny_profile), BoxEncoder(tiny_profile)
    h, boxes = torch.randn(2, 3, 32), torch.rand(3, 4)
    expected = torch.relu(h @ projection[0].weight.T + projection[0].bias)
    torch.testing.assert_close(
        projection(h), expected @ projection[2].weight.T + projection[2].bias
    )
    torch.testing.assert_close(encoder(boxes), boxes @ encoder.weight.T + encoder.bias)


def test_the_papers_sizes_have_the_papers_parameters():
    with torch.device("meta"):
        jcm = JudgmentCorrection(full_profile())
        box_encoder = BoxEncoder(full_profile())
    sizes = [sum(p.numel() for p in part.parameters()) for part in (jcm.judge, jcm.corrector)]
    assert sizes == [
        256 * 512 + 512 + 512 * 512 + 512 + 512 + 1,
        256 * 512 + 512 + 512 * 512 + 512 + 512 * 256 + 256,
    ]
    assert box_encoder.weight.shape == (4096, 4)


def test_mediround_has_an_embedding_and_head_of_its_own(network):
    assert network.embed_tokens.weight.shape == (network.profile.mistral.vocab_size + 3, 32)
    network.adopt_base_vocabulary()
    for own, base in (
        (network.embed_tokens.weight, network.base.model.embed_tokens.weight),
        (network.lm_head.weight, network.base.lm_head.weight),
    ):
        assert torch.equal(own[:-3], base)
        torch.testing.assert_close(own[-3:], base.mean(dim=0).expand(3, -1))
    adapted = {n.split(".lora_")[0].split(".")[-1] for n in network.state_dict() if "lora_" in n}
    assert adapted == {"q_proj", "v_proj"}


QUESTIONS = ("Where is the liver?", "Show me the sac under it.", "Its vein?")


def by_hand(network, tokenizer, image, questions, masks):
    """Text embeddings of all turns by one pass over all of them, references shown by `masks`."""
    ids, positions = conversation_prompt(
        tokenizer, [Turn(q.prompt, len(q.references)) for q in questions]
    )
    rows, segments = [], []
    frame = torch.from_numpy(clip_frame(image, 64))[None]
    segments.append(network.llava_image_encoder(frame)[0][0])
    for mask in masks:
        crop, box = reference_region(image, mask)
        frame = torch.from_numpy(clip_frame(crop, 64))[None]
        segments.append(network.llava_image_encoder(frame)[1][0])
        segments.append(network.box_encoder(torch.from_numpy(box))[None])
    upcoming = iter(segments)
    for token in ids:
        rows.append(next(upcoming) if token == -1 else network.embed_tokens.weight[[token]])
    states = network.mllm(
        inputs_embeds=torch.cat(rows)[None], output_hidden_states=True
    ).hidden_states[-1]
    return network.text_projection(states[0, positions])


def decoded(network, image, text_embedding):
    frame, inner = sam_frame(image, 64)
    low = network.mask_decoder(
        network.image_encoder(torch.from_numpy(frame)[None]), text_embedding[None, None, None], None
    )
    return resize_logits(low, 64, inner, image.shape[:2])[0, 0]


@torch.no_grad()
@pytest.mark.parametrize("judge", ["every", "referenced", "never"])
def test_a_conversation_is_one_pass_over_all_rounds_with_the_masks_it_made(
    network, tokenizer, image, drawn, judge
):
    questions = [
        Question(QUESTIONS[0], (drawn,)),
        Question(QUESTIONS[1], (0,)),
        Question(QUESTIONS[2], (1, 0)),
    ]
    first = network.answer_conversation(tokenizer, image, questions, judge="never")
    # A threshold between the scores: some rounds are corrected, others are not.
    beta = sorted(output.quality for output in first)[1]
    answers = network.answer_conversation(tokenizer, image, questions, beta, judge)
    masks = [drawn, answers[0].mask, answers[1].mask, answers[0].mask]
    expected = by_hand(network, tokenizer, image, questions, masks)
    judged = {"every": {0, 1, 2}, "referenced": {0, 1}, "never": set()}[judge]
    for number, answer in enumerate(answers):
        torch.testing.assert_close(answer.text_embedding[0], expected[number], rtol=1e-4, atol=1e-5)
        quality, correction = network.jcm(expected[number][None])
        assert answer.quality == pytest.approx(quality.item(), abs=1e-5)
        assert answer.corrected == (number in judged and answer.quality <= beta)
        prompt = correction[0] if answer.corrected else expected[number]
        torch.testing.assert_close(
            answer.mask_logits, decoded(network, image, prompt), rtol=1e-3, atol=1e-4
        )
    assert judge == "never" or 0 < sum(answer.corrected for answer in answers) < 3


@torch.no_grad()
def test_a_score_equal_to_beta_is_corrected(network, tokenizer, image):
    (answer,) = network.answer_conversation(tokenizer, image, [Question("Where?")], beta=0.0)
    assert not answer.corrected
    (again,) = network.answer_conversation(
        tokenizer, image, [Question("Where?")], beta=answer.quality
    )
    assert again.corrected


@torch.no_grad()
def test_what_a_reference_shows_changes_the_answer(network, tokenizer, image, drawn):
    answers = [
        network.answer_conversation(tokenizer, image, [Question("What is it?", (mask,))])[0]
        for mask in (drawn, ~drawn)
    ]
    assert (answers[0].text_embedding - answers[1].text_embedding).abs().max() > 1e-3


def test_a_reference_to_itself_is_refused(network, tokenizer, image):
    with pytest.raises(ValueError, match="question 1: expected earlier questions, 0 to 0, got 1"):
        network.answer_conversation(tokenizer, image, [Question("a"), Question("b", (1,))])
