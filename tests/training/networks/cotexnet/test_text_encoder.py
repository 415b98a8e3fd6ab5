import pytest
import torch

from training.networks.cotexnet.network import CoTexNet
from training.networks.cotexnet.reading import PAPER


@torch.no_grad()
def test_a_prompt_without_regions_is_clipsegs(network, clipseg, prompts):
    # CLIPSeg masks the padding, too, which the causal mask hides already.
    padding = (prompts.token_ids == 59).cumsum(dim=1) <= 1
    expected = clipseg.clip.get_text_features(
        input_ids=prompts.token_ids, attention_mask=padding.long()
    )
    expected = getattr(expected, "pooler_output", expected)
    torch.testing.assert_close(network.text_encoder(prompts), expected)


def encode_rows(clipseg, rows, ends):
    """CLIPSeg's text tower from the rows of its first layer on, with torch's own causal mask."""
    text, length = clipseg.clip.text_model, rows.shape[1]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(length)[None, None]
    for layer in text.encoder.layers:
        rows = layer(rows, mask)
    pooled = torch.stack([row[end] for row, end in zip(rows, ends, strict=True)])
    return clipseg.clip.text_projection(text.final_layer_norm(pooled))


@torch.no_grad()
@pytest.mark.parametrize("regions", [1, 3])
def test_regions_overwrite_words_and_their_positions(network, clipseg, prompts, regions):
    roi = torch.randn(3, regions, 20, generator=torch.Generator().manual_seed(1))
    rows = clipseg.clip.text_model.embeddings(input_ids=prompts.token_ids).clone()
    for number in range(regions):
        rows[:, 5 + number, :] = roi[:, number]
    expected = encode_rows(clipseg, rows, ends=(10, 13, 4))
    found = network.text_encoder(prompts, roi)
    torch.testing.assert_close(found, expected)
    without = network.text_encoder(prompts)
    assert (found[:2] - without[:2]).abs().amax() > 0.01
    torch.testing.assert_close(found[2], without[2])  # ends in front of position 5


@torch.no_grad()
def test_in_the_papers_reading_regions_have_positions(network, clipseg, prompts, profile):
    paper = CoTexNet(profile, {"polyp": 1}, PAPER).eval()
    paper.text_encoder.load_state_dict(network.text_encoder.state_dict())
    roi = torch.randn(3, 2, 20, generator=torch.Generator().manual_seed(1))
    text = clipseg.clip.text_model
    words = text.embeddings.token_embedding(prompts.token_ids)
    words[:, 5:7] = roi
    rows = text.embeddings(inputs_embeds=words)
    expected = encode_rows(clipseg, rows, ends=(10, 13, 4))
    torch.testing.assert_close(paper.text_encoder(prompts, roi), expected)
