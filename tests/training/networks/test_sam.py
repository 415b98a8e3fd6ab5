"""What `tests/export/test_sam_keys.py` leaves: it compares both halves with segment_anything."""

import torch

from training.networks.sam import PromptedMaskDecoder, SamImageEncoder


@torch.no_grad()
def test_the_encoder_keeps_the_stride_with_a_convolutional_stem(tiny_profile):
    encoder = SamImageEncoder(tiny_profile).eval()
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, 16, 8, 8)


@torch.no_grad()
def test_prompts_of_one_picture_are_answered_each_on_its_own(tiny_profile):
    torch.manual_seed(0)
    decoder = PromptedMaskDecoder(tiny_profile).eval()
    embedding, text = torch.randn(2, 16, 8, 8), torch.randn(2, 3, 1, 16)
    boxes = torch.rand(2, 3, 4) * 0.5 + 0.2
    together = decoder(embedding, text, boxes)
    assert together.shape == (2, 3, 32, 32)
    for image in range(2):
        for prompt in range(3):
            alone = decoder(
                embedding[image : image + 1],
                text[image : image + 1, prompt : prompt + 1],
                boxes[image : image + 1, prompt : prompt + 1],
            )
            torch.testing.assert_close(alone[0, 0], together[image, prompt], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_both_prompts_matter(tiny_profile):
    torch.manual_seed(1)
    decoder = PromptedMaskDecoder(tiny_profile).eval()
    embedding, text = torch.randn(1, 16, 8, 8), torch.randn(1, 1, 1, 16)
    box = torch.tensor([[[0.5, 0.5, 0.4, 0.4]]])
    base = decoder(embedding, text, box)
    assert (decoder(embedding, text + 1, box) - base).abs().max() > 1e-5
    assert (decoder(embedding, text, box * 0.5) - base).abs().max() > 1e-5


@torch.no_grad()
def test_sparse_prompts_stand_in_the_order_corner_corner_text(tiny_profile, monkeypatch):
    decoder = PromptedMaskDecoder(tiny_profile).eval()
    seen = {}

    def spy(**arguments):
        seen.update(arguments)
        return torch.zeros(1, 1, 1, 32, 32), None

    monkeypatch.setattr(decoder.mask_decoder, "forward", spy)
    text = torch.full((1, 1, 1, 16), 7.0)
    decoder(torch.zeros(1, 16, 8, 8), text, torch.tensor([[[0.5, 0.25, 0.5, 0.5]]]))
    sparse = seen["sparse_prompt_embeddings"]
    assert sparse.shape == (1, 1, 3, 16)
    assert torch.equal(sparse[0, 0, 2], text[0, 0, 0])
    # Corners (16, 0) and (48, 32) of the 64-pixel frame, at pixel centres, by SAM's formula.
    encoder = decoder.prompt_encoder
    gaussian = encoder.shared_embedding.positional_embedding
    for index, corner in enumerate([(16.0, 0.0), (48.0, 32.0)]):
        position = 2 * (torch.tensor(corner) + 0.5) / 64 - 1
        angle = 2 * torch.pi * position @ gaussian
        expected = torch.cat([angle.sin(), angle.cos()]) + encoder.point_embed[2 + index].weight[0]
        torch.testing.assert_close(sparse[0, 0, index], expected, rtol=1e-4, atol=1e-4)
    assert seen["multimask_output"] is False


def test_the_positional_frequencies_are_no_parameter_to_train(tiny_profile):
    decoder = PromptedMaskDecoder(tiny_profile)
    assert not decoder.prompt_encoder.shared_embedding.positional_embedding.requires_grad


@torch.no_grad()
def test_without_a_box_the_text_is_the_only_sparse_prompt(tiny_profile):
    torch.manual_seed(2)
    decoder = PromptedMaskDecoder(tiny_profile).eval()
    embedding, text = torch.randn(2, 16, 8, 8), torch.randn(2, 3, 1, 16)
    no_mask = decoder.prompt_encoder.no_mask_embed.weight[0][:, None, None]
    expected, _ = decoder.mask_decoder(
        embedding,
        decoder.image_positions().expand(2, -1, -1, -1),
        text,
        no_mask.expand(2, -1, 8, 8),
        multimask_output=False,
    )
    torch.testing.assert_close(decoder(embedding, text, None), expected[:, :, 0])
