"""The network in one piece: what is joined where, and how logits come back to the picture."""

import pytest
import torch

from benchmarks.segment_anything_reference import reference
from serving.llava_prompt import medisee_prompt
from training.networks.medisee import MediSee, resize_logits


@pytest.fixture(scope="module")
def network(tiny_profile):
    torch.manual_seed(0)
    network = MediSee(tiny_profile).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name or name.startswith("box_decoder"):
                torch.nn.init.normal_(parameter, std=0.2)
    return network


SIZES = [((48, 64), (75, 100)), ((64, 64), (64, 64)), ((64, 9), (500, 70)), ((1, 64), (1, 300))]


@pytest.mark.parametrize(("input_size", "original_size"), SIZES)
def test_logits_come_back_to_the_picture_as_in_sam(input_size, original_size):
    modeling = reference("segment_anything.modeling")

    class Encoder(torch.nn.Module):
        img_size = 64

    sam = modeling.Sam(Encoder(), None, None)
    logits = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = sam.postprocess_masks(logits, input_size, original_size)
    torch.testing.assert_close(resize_logits(logits, 64, input_size, original_size), expected)


def test_the_picture_stands_in_the_prompt_where_the_minus_one_is(network):
    patches = torch.randn(16, 32)
    embedded = network.embed_prompt([1, 7, -1, 1537, 9], [patches])
    table = network.embed_tokens.weight
    assert embedded.shape == (1, 20, 32)
    assert torch.equal(embedded[0, 2:18], patches)
    assert torch.equal(embedded[0, [0, 1, 18, 19]], table[[1, 7, 1537, 9]])


def test_medisees_vocabulary_starts_from_the_bases_with_the_mean_for_added_tokens(tiny_profile):
    network = MediSee(tiny_profile)
    network.adopt_base_vocabulary()
    for own, base in (
        (network.embed_tokens.weight, network.base.model.embed_tokens.weight),
        (network.lm_head.weight, network.base.lm_head.weight),
    ):
        assert own.shape == (1538, 32)
        assert torch.equal(own[:1536], base)
        torch.testing.assert_close(own[1536:], base.mean(dim=0).expand(2, -1))
        own.data.zero_()
        assert base.abs().max() > 0  # not shared


@torch.no_grad()
def test_an_answer_is_the_chain_of_its_parts(network, tokenizer):
    sam_pixels, clip_pixels = torch.randn(3, 64, 64), torch.randn(3, 64, 64)
    ids = medisee_prompt(tokenizer, "Where is the thalamus?")
    answer = network.answer(sam_pixels, clip_pixels, ids, (48, 64), (75, 100))

    # By other doors: Hugging Face's generate-style call with all hidden states, one by one.
    patches, _ = network.llava_image_encoder(clip_pixels[None])
    outputs = network.mllm(
        inputs_embeds=network.embed_prompt(ids, [patches[0]]), output_hidden_states=True
    )
    states = outputs.hidden_states[-1][0]
    hidden = torch.stack([states[-5], states[-1]])
    torch.testing.assert_close(answer.hidden_states, hidden, rtol=1e-4, atol=1e-5)
    text, box_state = network.fusion(hidden[None])
    box = network.box_decoder(box_state[0])
    torch.testing.assert_close(answer.box_cxcywh, box, rtol=1e-4, atol=1e-5)
    low = network.mask_decoder(
        network.image_encoder(sam_pixels[None]), text[:, None], box[None, None]
    )
    expected = resize_logits(low, 64, (48, 64), (75, 100))[0, 0]
    assert answer.mask_logits.shape == (75, 100)
    torch.testing.assert_close(answer.mask_logits, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_what_follows_the_second_position_cannot_change_the_answer(network, tokenizer):
    ids = medisee_prompt(tokenizer, "Where is the thalamus?")
    patches = torch.randn(16, 32)
    full = [*ids, tokenizer.added_ids["[BBOX]"], *tokenizer.encode_plain(". "), tokenizer.eos_id]
    states = [
        network.mllm.model.model(
            inputs_embeds=network.embed_prompt(x, [patches])
        ).last_hidden_state[0]
        for x in (ids, full)
    ]
    torch.testing.assert_close(states[0], states[1][: len(states[0])], rtol=1e-4, atol=1e-5)


def test_the_adapter_is_on_queries_and_values_only(network):
    adapted = {
        name.split(".lora_")[0].split(".")[-1] for name in network.state_dict() if "lora_" in name
    }
    assert adapted == {"q_proj", "v_proj"}
