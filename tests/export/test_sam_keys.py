import pytest
import torch

from export.sam_keys import load_medsam, segment_anything_name
from training.networks.medisee import resize_logits
from training.networks.profiles import full_profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder

BOXES_CXCYWH = torch.tensor([[0.5, 0.4, 0.3, 0.2], [0.2, 0.7, 0.25, 0.5]])


@pytest.fixture(scope="module")
def sam(segment_anything, randomize):
    """SAM ViT-B of the package segment-anything with random weights."""
    return randomize(segment_anything.build_sam.sam_model_registry["vit_b"](), seed=1)


@pytest.fixture(scope="module")
def mask_decoder(sam):
    decoder = PromptedMaskDecoder(full_profile())
    state = sam.state_dict()
    decoder.load_state_dict({name: state[segment_anything_name(name)] for name in own(decoder)})
    return decoder.eval()


def own(module):
    return module.state_dict()


def relative_difference(value, expected):
    assert value.shape == expected.shape
    assert expected.abs().max() > 1e-3
    return float((value - expected).abs().max() / expected.abs().max())


def random_tensor(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_names_are_exactly_those_of_segment_anything(sam):
    with torch.device("meta"):
        encoder, decoder = SamImageEncoder(full_profile()), PromptedMaskDecoder(full_profile())
    shapes = {
        segment_anything_name(name): tensor.shape
        for module in (encoder, decoder)
        for name, tensor in module.state_dict().items()
    }
    assert shapes == {name: tensor.shape for name, tensor in sam.state_dict().items()}


@torch.no_grad()
def test_a_medsam_file_gives_the_image_embedding_of_segment_anything(sam, tmp_path):
    torch.save(sam.state_dict(), tmp_path / "medsam_vit_b.pth")
    encoder = SamImageEncoder(full_profile()).eval()
    load_medsam(encoder, tmp_path / "medsam_vit_b.pth")
    pixels = random_tensor(1, 3, 1024, 1024, seed=2)
    difference = relative_difference(encoder(pixels), sam.image_encoder(pixels))
    assert difference < 1e-4


@torch.no_grad()
def test_box_prompts_are_embedded_as_by_segment_anything(sam, mask_decoder):
    center, size = BOXES_CXCYWH[:, :2], BOXES_CXCYWH[:, 2:]
    corners = torch.cat([center - size / 2, center + size / 2], dim=1) * 1024
    expected, expected_dense = sam.prompt_encoder(points=None, boxes=corners, masks=None)
    sparse, dense = mask_decoder.prompt_encoder(
        input_points=None, input_labels=None, input_boxes=corners[None], input_masks=None
    )
    difference = relative_difference(sparse[0], expected)
    assert difference < 1e-4
    # Ours has one dense prompt per image, segment-anything's one per box; all are alike.
    assert relative_difference(dense[0], expected_dense[0]) < 1e-6
    positions = mask_decoder.image_positions()
    assert relative_difference(positions, sam.prompt_encoder.get_dense_pe()) < 1e-4


@torch.no_grad()
def test_masks_from_box_and_text_are_those_of_segment_anything(sam, mask_decoder):
    embedding = random_tensor(1, 256, 64, 64, seed=3)
    text = random_tensor(2, 1, 256, seed=4)
    center, size = BOXES_CXCYWH[:, :2], BOXES_CXCYWH[:, 2:]
    corners = torch.cat([center - size / 2, center + size / 2], dim=1) * 1024
    sparse, dense = sam.prompt_encoder(points=None, boxes=corners, masks=None)
    expected, _ = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=torch.cat([sparse, text], dim=1),
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    logits = mask_decoder(embedding, text[None], BOXES_CXCYWH[None])
    difference = relative_difference(logits[0], expected[:, 0])
    assert difference < 1e-4

    input_size, original_size = (768, 1024), (151, 201)
    resized = resize_logits(logits, 1024, input_size, original_size)
    expected = sam.postprocess_masks(expected, input_size, original_size)
    difference = relative_difference(resized[0], expected[:, 0])
    assert difference < 1e-4


def test_a_file_of_another_layout_is_refused_by_name(tmp_path):
    with torch.device("meta"):
        encoder = SamImageEncoder(full_profile())
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 14, 14, 768)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"176 missing: image_encoder\.blocks") as error:
        load_medsam(encoder, tmp_path / "other.pth")
    assert "image_encoder.pos_embed is (1, 14, 14, 768), expected (1, 64, 64, 768)" in str(error)


def test_a_training_checkpoint_is_refused(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "best.pth")
    with pytest.raises(ValueError, match=r"best\.pth: expected a state dictionary.*model, epoch"):
        load_medsam(None, tmp_path / "best.pth")
