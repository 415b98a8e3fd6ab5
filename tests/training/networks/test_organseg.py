"""The network in one piece: what is read from the joint embedding, and what is joined where."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from serving.llava_prompt import LlavaTokenizer
from serving.organseg_prompt import DEMO_TEMPLATE, organseg_prompt
from training.context_cache import CONTEXT_WIDTH, Context
from training.networks.organseg import OrganSeg, OrganSegExtractors, resize_probabilities
from training.networks.profiles import full_profile
from training.run import WEIGHTS


@pytest.fixture(scope="module")
def tokenizer():
    return LlavaTokenizer(WEIGHTS / "tokenizer.model")


@pytest.fixture(scope="module")
def network(tiny_profile, tokenizer):
    torch.manual_seed(0)
    profile = deepcopy(tiny_profile)
    profile.mistral.vocab_size = tokenizer.vocabulary_size
    network = OrganSeg(profile).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return network


@torch.no_grad()
def test_the_extractors_are_small_perceptrons(network):
    extractors = network.extractors
    state = {name: tensor.double().numpy() for name, tensor in extractors.state_dict().items()}
    hidden = np.random.default_rng(0).standard_normal((2, 3, 32))

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def gelu(x):
        return 0.5 * x * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy())

    segment = np.maximum(linear("segment_information.0", hidden), 0)
    rows = linear("segment_rows", segment)
    box = linear("box_head.2", np.maximum(linear("box_head.0", rows[..., 16:]), 0))
    interest = linear("interest.2", gelu(linear("interest.0", hidden)))
    expected = (
        rows[..., None, :16],
        sigmoid(box),
        interest / np.linalg.norm(interest, axis=-1, keepdims=True),
        sigmoid(linear("presence_head", segment))[..., 0],
    )
    got = extractors(torch.from_numpy(hidden).float())
    assert [tuple(tensor.shape) for tensor in got] == [
        (2, 3, 1, 16),
        (2, 3, 4),
        (2, 3, CONTEXT_WIDTH),
        (2, 3),
    ]
    for tensor, value in zip(got, expected, strict=True):
        np.testing.assert_allclose(tensor, value, atol=1e-5)


def test_at_full_size_the_extractors_have_the_widths_of_the_decision_table():
    with torch.device("meta"):
        extractors = OrganSegExtractors(full_profile())
    shapes = {name: tuple(p.shape) for name, p in extractors.named_parameters() if p.ndim == 2}
    assert shapes == {
        "segment_information.0.weight": (4096, 4096),
        "segment_rows.weight": (2 * 256, 4096),
        "box_head.0.weight": (256, 256),
        "box_head.2.weight": (4, 256),
        "presence_head.weight": (1, 4096),
        "interest.0.weight": (1024, 4096),
        "interest.2.weight": (384, 1024),
    }


def test_probabilities_and_not_logits_are_interpolated():
    low_res = torch.tensor([[[[100.0, -100.0]]]])
    # Of logits, half a pixel off, would come 1, 1, 0, 0.
    expected = torch.tensor([1.0, 0.75, 0.25, 0.0]).expand(1, 1, 3, 4)
    torch.testing.assert_close(resize_probabilities(low_res, (3, 4)), expected)


@torch.no_grad()
def test_an_answer_is_the_chain_of_its_parts(network, tokenizer):
    sam_pixels, clip_pixels = torch.rand(3, 64, 64), torch.randn(3, 64, 64)
    matrix = torch.nn.functional.normalize(torch.randn(5, CONTEXT_WIDTH), dim=-1)
    ids = organseg_prompt(tokenizer, "Where is the liver?", DEMO_TEMPLATE)
    context = Context(matrix, ("liver", "spleen"), "0")
    answer = network.answer(sam_pixels, clip_pixels, ids, (75, 100), context)

    # By other doors: the base's own embedding layer and Hugging Face's hidden states.
    patches, _ = network.llava_image_encoder(clip_pixels[None])
    image = ids.index(-1)
    embed = network.mllm.get_input_embeddings()
    before, after = embed(torch.tensor(ids[:image])), embed(torch.tensor(ids[image + 1 :]))
    outputs = network.mllm(
        inputs_embeds=torch.cat([before, patches[0], after])[None], output_hidden_states=True
    )
    hidden = outputs.hidden_states[-1][:, -1]
    torch.testing.assert_close(answer.hidden_state, hidden[0], rtol=1e-4, atol=1e-5)
    seg_embedding, boxes, interest, presence = network.extractors(hidden)
    torch.testing.assert_close(answer.box_cxcywh, boxes[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer.presence, presence[0], rtol=1e-4, atol=1e-5)
    cosines = torch.nn.functional.cosine_similarity(interest, matrix)
    expected = torch.stack([cosines[0], cosines[1], cosines[2:].max()])
    torch.testing.assert_close(answer.similarities, expected, rtol=1e-4, atol=1e-5)
    embedding = network.image_encoder(sam_pixels[None])
    low_res = network.mask_decoder(embedding, seg_embedding[None], boxes[None])
    upsample = torch.nn.Upsample((75, 100), mode="bilinear", align_corners=False)
    expected = upsample(torch.sigmoid(low_res))[0, 0]
    torch.testing.assert_close(answer.mask_probabilities, expected, rtol=1e-3, atol=1e-4)


def test_only_the_adapter_and_the_extractors_are_organ_segs_own(network):
    names = {name.split(".")[0] for name in network.state_dict()}
    assert names == {
        "image_encoder",
        "llava_image_encoder",
        "mllm",
        "extractors",
        "mask_decoder",
    }
    adapted = {
        name.split(".lora_")[0].split(".")[-1] for name in network.state_dict() if "lora_" in name
    }
    assert adapted == {"q_proj", "v_proj"}
    assert list(network.mllm.peft_config) == ["organseg"]
