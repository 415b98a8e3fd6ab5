"""Checkpoints of CoTexNet against modules named as its authors' are: names, shapes, results."""

import argparse
import os

import pytest
import torch
from torch import nn
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from export.cotexnet_checkpoint import checkpoint_shapes, cotexnet_network
from training.networks.cotexnet.profile import CoTexNetProfile, Tower, full_profile
from training.networks.cotexnet.text_encoder import Prompts

PROFILE = CoTexNetProfile(
    name="tiny",
    image_size=32,
    patch_size=16,
    vision=Tower(width=16, layers=4, heads=2, feed_forward=24),
    taps=(0, 1, 2),
    text=Tower(width=12, layers=1, heads=2, feed_forward=24),
    vocabulary_size=40,
    text_length=10,
    embedding_width=14,
    decoder=Tower(width=8, layers=3, heads=2, feed_forward=16),
    convolutional_stem=False,
)
CONFIG = CLIPSegConfig(
    vision_config={
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "image_size": 32,
        "patch_size": 16,
    },
    text_config={
        "hidden_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": 40,
        "max_position_embeddings": 10,
        "bos_token_id": 38,
        "eos_token_id": 39,
    },
    projection_dim=14,
    extract_layers=[0, 1, 2],
    reduce_dim=8,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=16,
    use_complex_transposed_convolution=True,
)


class ImageProjection(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc_out = nn.Linear(16, 14)
        block = [nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.0), nn.ReLU()) for _ in range(2)]
        self.layers = nn.Sequential(*block)

    def forward(self, x):
        return self.fc_out(self.layers(x)).sigmoid()


class Published(nn.Module):
    """Attributes as in the authors' code around Hugging Face's CLIPSeg."""

    def __init__(self, classes):
        super().__init__()
        self.clipsegp, self.im2text = nn.Module(), nn.Module()
        clipseg = CLIPSegForImageSegmentation(CONFIG)
        self.img_projection = clipseg.img_projection = ImageProjection()
        for name, value in (("weight_alpha", 0.2), ("var", 1.0), ("mean", -0.002)):
            clipseg.register_parameter(name, nn.Parameter(torch.tensor([value])))
        if classes > 1:
            upsampling = clipseg.decoder.transposed_convolution
            clipseg.decoder.transposed_convolution = upsampling[:4]
            clipseg.decoder.output_convolution = nn.ConvTranspose2d(4, classes + 1, 4, stride=4)
        self.clipsegp.clipseg = clipseg
        self.im2text.vision_model = CLIPSegForImageSegmentation(CONFIG).clip.vision_model
        self.im2text.mapping_module = nn.Sequential(
            nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 12), nn.LayerNorm(12)
        )

    def segment(self, pixels):
        """The class token's embedding in the text's place, as released."""
        clipseg = self.clipsegp.clipseg
        vision = clipseg.clip.vision_model(
            pixels, interpolate_pos_encoding=False, output_hidden_states=True
        )
        embedding = self.img_projection(vision.last_hidden_state[:, 0]).sigmoid()
        condition = embedding * clipseg.var + clipseg.mean
        taps, decoder = tuple(vision.hidden_states[1:4]), clipseg.decoder
        if not hasattr(decoder, "output_convolution"):
            return decoder(taps, condition).logits[:, None]
        maps = decoder(taps, condition).logits
        return decoder.output_convolution(maps)


@torch.no_grad()
def published(classes, seed, clip_seed=0):
    module = Published(classes).eval()
    for name, parameter in module.named_parameters():
        of_clip = ".clip." in name
        generator = torch.Generator().manual_seed((clip_seed if of_clip else seed) + len(name))
        spread = 0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.normal_(std=spread, generator=generator)
    clip = module.clipsegp.clipseg.clip
    module.im2text.vision_model.load_state_dict(clip.vision_model.state_dict())
    return module


@pytest.fixture(scope="module")
def modules():
    return {"kvasir": published(1, seed=1), "acdc": published(3, seed=2)}


def write(file, module, **changed):
    content = {"model": module.state_dict(), "epoch": 7, "best_dice": torch.tensor(0.9)}
    content["args"] = argparse.Namespace(lr=3e-4, model_name="CoTexNet")
    torch.save(content | changed, file)
    return file


@pytest.fixture
def files(modules, tmp_path):
    return {task: write(tmp_path / f"{task}.pth", module) for task, module in modules.items()}


@torch.no_grad()
def test_every_task_segments_as_its_own_checkpoint(modules, files):
    network = cotexnet_network(PROFILE, files)
    assert network.tasks == {"kvasir": 1, "acdc": 3}
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for task, module in modules.items():
        expected = module.segment(pixels)
        assert expected.std() > 0.01
        torch.testing.assert_close(network.segment(task, pixels), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_training_needs_is_read_as_well(modules, files):
    network = cotexnet_network(PROFILE, files)
    ids = torch.tensor([[38, 1, 2, 3, 39, 39, 39, 39, 39, 39]])
    for task, module in modules.items():
        expected = module.clipsegp.clipseg.clip.get_text_features(ids)
        expected = getattr(expected, "pooler_output", expected)
        torch.testing.assert_close(network.text_encoder(Prompts(ids, 5)), expected)
        token, teacher = torch.randn(1, 16), network.teachers[task]
        torch.testing.assert_close(teacher.roi_map(token), module.im2text.mapping_module(token))
        assert teacher.noise.alpha.equal(module.clipsegp.clipseg.weight_alpha)


def test_nothing_that_a_file_names_is_run(modules, tmp_path):
    class MakesAFolder:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    file = write(tmp_path / "task.pth", modules["kvasir"], args=MakesAFolder())
    assert cotexnet_network(PROFILE, {"kvasir": file}).tasks == {"kvasir": 1}
    assert not (tmp_path / "made").exists()


def test_a_file_with_another_frozen_trunk_is_refused(modules, files, tmp_path):
    files["busi"] = write(tmp_path / "busi.pth", published(1, seed=3, clip_seed=9))
    with pytest.raises(ValueError, match=r"busi\.pth: \d+ tensors .* differ from .*kvasir\.pth"):
        cotexnet_network(PROFILE, files)


def test_a_second_copy_that_differs_is_refused(tmp_path):
    module = published(1, seed=1)
    with torch.no_grad():
        module.im2text.vision_model.pre_layrnorm.bias += 1
    file = write(tmp_path / "task.pth", module)
    with pytest.raises(ValueError, match="under their second name"):
        cotexnet_network(PROFILE, {"kvasir": file})


def test_other_layouts_are_refused(modules, tmp_path):
    state = modules["kvasir"].state_dict()
    cut = {name: tensor for name, tensor in state.items() if "film_add" not in name}
    file = write(tmp_path / "cut.pth", modules["kvasir"], model=cut)
    with pytest.raises(ValueError, match=r"2 missing: clipsegp\.clipseg\.decoder\.film_add\.bias"):
        cotexnet_network(PROFILE, {"kvasir": file})
    file = write(tmp_path / "more.pth", modules["kvasir"], model=state | {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="1 unknown: x"):
        cotexnet_network(PROFILE, {"kvasir": file})
    torch.save(dict(state), tmp_path / "state.pth")
    with pytest.raises(ValueError, match="under 'model'"):
        cotexnet_network(PROFILE, {"kvasir": tmp_path / "state.pth"})
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"not a file of torch\.save"):
        cotexnet_network(PROFILE, {"kvasir": tmp_path / "text.pth"})
    with pytest.raises(ValueError, match="at least one"):
        cotexnet_network(PROFILE, {})


@pytest.mark.parametrize("classes", [1, 3])
def test_the_full_profile_has_the_published_shapes(classes):
    shapes = checkpoint_shapes(full_profile(), classes)
    assert len(shapes) == 682
    decoder = "clipsegp.clipseg.decoder."
    output = "transposed_convolution.4." if classes == 1 else "output_convolution."
    published = {
        "im2text.mapping_module.0.weight": (512, 768),
        "im2text.vision_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
        "img_projection.layers.1.0.weight": (768, 768),
        "clipsegp.clipseg.img_projection.fc_out.weight": (512, 768),
        "clipsegp.clipseg.clip.vision_model.pre_layrnorm.bias": (768,),
        "clipsegp.clipseg.clip.text_model.embeddings.token_embedding.weight": (49408, 512),
        "clipsegp.clipseg.clip.visual_projection.weight": (512, 768),
        "clipsegp.clipseg.clip.logit_scale": (),
        "clipsegp.clipseg.var": (1,),
        f"{decoder}film_mul.weight": (64, 512),
        f"{decoder}layers.2.mlp.fc1.weight": (2048, 64),
        f"{decoder}transposed_convolution.2.weight": (64, 32, 4, 4),
        f"{decoder}{output}weight": (32, 1 if classes == 1 else 4, 4, 4),
    }
    assert {name: tuple(shapes[name]) for name in published} == published
