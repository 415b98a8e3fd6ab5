"""A checkpoint of MediRound against its authors' modules: names, shapes, what parts compute."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export.mediround_checkpoint import checkpoint_shapes, mediround_source
from training.networks.profiles import full_profile
from training.run import WEIGHTS
from training.weights_folder import TOKENIZER

PREFIX = "base_model.model."
DEMO_TOKENIZER = WEIGHTS / TOKENIZER
OF_MEDISEE_ALONE = ("bbox_decoder", "router_seg", "router_box")


class QualityMLP(nn.Module):
    """As the authors name its layers; `last` is None for the one that refines."""

    def __init__(self, width, outputs, last):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 512), nn.Linear(512, 512)
        self.fc3, self.last = nn.Linear(512, outputs), last

    def forward(self, x):
        x = self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))
        return self.last(x) if self.last else x


@pytest.fixture(scope="module")
def own(tiny_profile):
    torch.manual_seed(5)
    width, channels = tiny_profile.mistral.hidden_size, tiny_profile.sam_decoder.hidden_size
    return nn.ModuleDict(
        {
            "bbox_encoder": nn.Linear(4, width),
            "mask_quality_MLP": QualityMLP(channels, 1, torch.sigmoid),
            "refine_MLP": QualityMLP(channels, channels, None),
        }
    ).requires_grad_(False)


@pytest.fixture(scope="module")
def state(published_state, own):
    """MediSee's, with MediRound's parts in place of its own and one more token."""
    state = {
        name: tensor
        for name, tensor in published_state.items()
        if not any(part in name for part in OF_MEDISEE_ALONE)
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table = state[PREFIX + name]
        state[PREFIX + name] = torch.cat([table, torch.rand(1, table.shape[1])])
    return state | {f"{PREFIX}model.{name}": tensor for name, tensor in own.state_dict().items()}


def write(folder, state):
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def source(tiny_profile, state, tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("mediround"), state)
    return mediround_source(tiny_profile, folder, DEMO_TOKENIZER)


@torch.no_grad()
def test_every_part_computes_what_the_authors_computes(source, published_network, own):
    body, ours = published_network.base_model.model.model, source.networks.mediround
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(3, 64, generator=generator)
    text = body.text_hidden_fcs[0](hidden)
    torch.testing.assert_close(ours.text_projection(hidden), text)
    boxes = torch.rand(3, 4, generator=generator)
    torch.testing.assert_close(ours.box_encoder(boxes), own["bbox_encoder"](boxes))
    quality, corrected = ours.jcm(text[:, None])
    torch.testing.assert_close(quality, own["mask_quality_MLP"](text)[:, 0])
    torch.testing.assert_close(corrected[:, 0], own["refine_MLP"](text))

    sam = body.visual_model
    embedding = torch.randn(1, 32, 8, 8, generator=generator)
    sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
    for number in range(3):
        expected, _ = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse, text[None, [number]]], dim=1),
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        found = ours.mask_decoder(embedding, text[None, [number], None], None)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_language_model_has_the_checkpoints_words_and_adapter(source, state, tiny_profile):
    vocabulary = tiny_profile.mistral.vocab_size
    model = source.language_model
    table = state[f"{PREFIX}model.embed_tokens.weight"]
    assert model.embeddings["mediround"].equal(table)
    assert table.shape == (vocabulary + 3, 64)
    base = dict(model.tensors())
    assert base["lm_head.weight"].equal(state[f"{PREFIX}lm_head.weight"][:vocabulary])
    assert base["model.norm.weight"].equal(state[f"{PREFIX}model.norm.weight"])
    adapter = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    assert model.adapters.keys() == {"mediround"}
    found = model.adapters["mediround"].state
    assert found.keys() == {name.replace(".default", "") for name in adapter}
    assert all(found[name.replace(".default", "")].equal(adapter[name]) for name in adapter)
    assert "MediRound's checkpoint" in source.description


def test_a_checkpoint_of_the_first_stage_is_refused_for_its_missing_jcm(
    tiny_profile, state, tmp_path
):
    first = {name: tensor for name, tensor in state.items() if "_MLP" not in name}
    with pytest.raises(ValueError, match=r"12 missing: model\.mask_quality_MLP\.fc1"):
        mediround_source(tiny_profile, write(tmp_path / "first", first), DEMO_TOKENIZER)


def test_medisees_checkpoint_is_refused(tiny_profile, published_state, tmp_path):
    with pytest.raises(ValueError, match=r"unknown: .*bbox_decoder"):
        mediround_source(tiny_profile, write(tmp_path / "medisee", published_state), DEMO_TOKENIZER)


PUBLISHED_SHAPES = {
    "model.embed_tokens.weight": (32003, 4096),
    "lm_head.weight": (32003, 4096),
    "model.bbox_encoder.weight": (4096, 4),
    "model.bbox_encoder.bias": (4096,),
    "model.mask_quality_MLP.fc1.weight": (512, 256),
    "model.mask_quality_MLP.fc3.weight": (1, 512),
    "model.refine_MLP.fc2.weight": (512, 512),
    "model.refine_MLP.fc3.weight": (256, 512),
    "model.text_hidden_fcs.0.2.weight": (256, 4096),
}


def test_the_full_profile_has_the_published_shapes():
    shapes = {name: tuple(shape) for name, shape in checkpoint_shapes(full_profile()).items()}
    assert {name: shapes.get(name) for name in PUBLISHED_SHAPES} == PUBLISHED_SHAPES

    def millions(part):
        return sum(np.prod(shape) for name, shape in shapes.items() if part in name) / 1e6

    assert millions("mask_quality_MLP") == pytest.approx(0.39, abs=0.006)
    assert millions("refine_MLP") == pytest.approx(0.53, abs=0.006)
    assert millions("lora_") == pytest.approx(3.41, abs=0.005)
    assert not any(part in name for name in shapes for part in OF_MEDISEE_ALONE)
