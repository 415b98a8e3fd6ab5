import json

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel, MistralForCausalLM

from export.build import build
from export.medisee_checkpoint import checkpoint_shapes, medisee_source
from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer, medisee_prompt
from training.networks.profiles import full_profile
from training.run import WEIGHTS
from training.weights_folder import TOKENIZER

INPUT_SIZE, ORIGINAL_SIZE = (96, 128), (75, 100)
DEMO_TOKENIZER = WEIGHTS / TOKENIZER


def write_checkpoint(folder, state):
    """Two files, as zero_to_fp32 writes them when a limit on their size is set."""
    folder.mkdir(exist_ok=True)
    names = list(state)
    for number, half in enumerate((names[::2], names[1::2]), start=1):
        file = folder / f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: state[name] for name in half}, file)
    return folder


@pytest.fixture(scope="module")
def source(tiny_profile, published_state, tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("medisee"), published_state)
    return medisee_source(tiny_profile, folder, DEMO_TOKENIZER)


@pytest.fixture(scope="module")
def repository(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    build(source, folder, say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def question():
    tokenizer = LlavaTokenizer(DEMO_TOKENIZER, MEDISEE_ADDED_TOKENS)
    generator = torch.Generator().manual_seed(7)
    return {
        "pixels": torch.randn(1, 3, 128, 128, generator=generator),
        "clip_pixels": torch.randn(1, 3, 56, 56, generator=generator),
        "token_ids": medisee_prompt(tokenizer, "Where is the thalamus?"),
    }


@pytest.fixture(scope="module")
def expected(published_network, question):
    """The authors' forward pass, over the whole answer, by their own modules."""
    body = published_network.base_model.model.model
    seg, box = 1536, 1537
    ids = [*question["token_ids"], box, 300, 2]
    image = ids.index(-1)
    with torch.no_grad():
        hidden = body.vision_tower.vision_tower(
            question["clip_pixels"], output_hidden_states=True
        ).hidden_states[-2][:, 1:]
        features = body.mm_projector(hidden)
        embed = body.embed_tokens
        embeds = torch.cat(
            [
                embed(torch.tensor([ids[:image]])),
                features,
                embed(torch.tensor([ids[image + 1 :]])),
            ],
            dim=1,
        )
        states = body(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]
        # One row is read where the token before [SEG] or [BBOX] stands, behind the image's rows.
        shift = features.shape[1] - 1 - 1
        h_seg, h_box = states[ids.index(seg) + shift], states[ids.index(box) + shift]

        def fuse(router):
            gate = torch.sigmoid(router.gate(torch.cat([h_box, h_seg])))
            return (gate[0] * h_box + gate[1] * h_seg) / gate.sum()

        text = body.text_hidden_fcs[0](fuse(body.router_seg))
        layers = body.bbox_decoder.layers
        cx, cy, w, h = torch.sigmoid(
            layers[2](F.relu(layers[1](F.relu(layers[0](fuse(body.router_box))))))
        )
        corners = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        sam = body.visual_model
        sparse, dense = sam.prompt_encoder(points=None, boxes=corners[None] * 128, masks=None)
        low_res, _ = sam.mask_decoder(
            image_embeddings=sam.image_encoder(question["pixels"]),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse, text[None, None]], dim=1),
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits = sam.postprocess_masks(low_res, INPUT_SIZE, ORIGINAL_SIZE)[0, 0]
    scale = torch.tensor([100, 75, 100, 75])
    return {
        "hidden_states": torch.stack([h_seg, h_box]).numpy(),
        "boxes_xyxy": (corners * scale).numpy(),
        "logits": logits.numpy(),
    }


def run_onnx(repository, model, **inputs):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(repository / model / "1" / "model.onnx", options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@pytest.fixture(scope="module")
def hidden_states(repository, question):
    """What the language model of the exported folder gives, by transformers and PEFT."""
    folder = repository / "mllm" / "1"
    base = MistralForCausalLM.from_pretrained(folder / "base").float()
    network = PeftModel.from_pretrained(base, folder / "adapters" / "medisee").eval()
    table = load_file(folder / "embeddings" / "medisee.safetensors")["embed_tokens.weight"]
    tokens = run_onnx(repository, "llava_image_encoder", pixels=question["clip_pixels"].numpy())
    patch_tokens = torch.from_numpy(tokens["patch_tokens"])
    ids = question["token_ids"]
    image = ids.index(-1)
    embeds = torch.cat(
        [table[ids[:image]][None], patch_tokens, table[ids[image + 1 :]][None]], dim=1
    )
    with torch.no_grad():
        states = network.base_model.model.model(inputs_embeds=embeds).last_hidden_state
    return states[0, [-5, -1]].numpy()


def test_hidden_states_are_those_of_the_authors_network(hidden_states, expected):
    np.testing.assert_allclose(hidden_states, expected["hidden_states"], atol=2e-5)


def test_mask_and_box_are_those_of_the_authors_network(
    repository, question, hidden_states, expected
):
    fused = run_onnx(repository, "medisee_router", hidden_states=hidden_states[None])
    box = run_onnx(repository, "medisee_box_decoder", box_hidden_state=fused["box_hidden_state"])
    embedded = run_onnx(repository, "medsam_image_encoder", pixels=question["pixels"].numpy())
    answer = run_onnx(
        repository,
        "medisee_mask_decoder",
        image_embedding=embedded["image_embedding"],
        text_embedding=fused["text_embedding"],
        boxes_cxcywh=box["boxes_cxcywh"],
        input_size=np.array([INPUT_SIZE]),
        original_size=np.array([ORIGINAL_SIZE]),
    )
    logits = expected["logits"]
    mask = np.unpackbits(answer["masks"][0], axis=1)[:, : ORIGINAL_SIZE[1]]
    certain = np.abs(logits) > 1e-4 * np.abs(logits).max()
    assert certain.mean() > 0.99
    assert 0.02 < (logits > 0).mean() < 0.98
    np.testing.assert_array_equal(mask[certain], (logits > 0)[certain])
    np.testing.assert_allclose(answer["boxes_xyxy"][0], expected["boxes_xyxy"], atol=1e-3)
    foreground = 1 / (1 + np.exp(-logits[logits > 0]))
    assert answer["scores"][0] == pytest.approx(foreground.mean(), abs=1e-4)


def test_without_llava_med_the_base_speaks_with_medisees_words(source, published_state):
    base = dict(source.language_model.tensors())
    published = published_state["base_model.model.lm_head.weight"]
    assert base["lm_head.weight"].equal(published[:1536])
    assert source.language_model.embeddings["medisee"].shape == (1538, 64)
    assert "MediSee's, without its added tokens" in source.description


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_llava_med_gives_the_base_its_own_words(layout, tiny_profile, published_state, tmp_path):
    folder = write_checkpoint(tmp_path / "medisee", published_state)
    own = {
        "model.embed_tokens.weight": torch.rand(1536, 64),
        "lm_head.weight": torch.rand(1536, 64),
        "model.vision_tower.vision_tower.vision_model.post_layernorm.bias": torch.rand(32),
    }
    llava_med = tmp_path / "llava-med"
    llava_med.mkdir()
    if layout == "safetensors":
        for number, name in enumerate(own):
            save_file({name: own[name]}, llava_med / f"model-{number}-of-3.safetensors")
    else:
        torch.save(own, llava_med / "pytorch_model.bin")
    source = medisee_source(tiny_profile, folder, DEMO_TOKENIZER, llava_med)
    base = dict(source.language_model.tensors())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert base[name].equal(own[name])
    expected = published_state["base_model.model.model.embed_tokens.weight"]
    assert source.language_model.embeddings["medisee"].equal(expected)
    assert "LLaVA-Med's" in source.description


def test_names_that_are_missing_or_unknown_are_told(tiny_profile, published_state, tmp_path):
    state = dict(published_state)
    state["base_model.model.model.bbox_encoder.weight"] = torch.zeros(64, 4)
    del state["base_model.model.model.router_box.gate.0.weight"]
    # A layer of CLIP that the export leaves out belongs to the layout all the same.
    del state[f"{PREFIX}model.vision_tower.vision_tower.vision_model.{LAST_CLIP_BIAS}"]
    state["base_model.model.model.norm.weight"] = torch.zeros(65)
    folder = write_checkpoint(tmp_path / "medisee", state)
    with pytest.raises(ValueError, match="2 missing: ") as error:
        medisee_source(tiny_profile, folder, DEMO_TOKENIZER)
    text = str(error.value)
    assert "model.router_box.gate.0.weight" in text
    assert LAST_CLIP_BIAS in text
    assert "1 unknown: model.bbox_encoder.weight" in text
    assert "model.norm.weight is (65,), expected (64,)" in text


def test_a_file_that_torch_did_not_write_is_refused(tiny_profile, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: not a file of torch.save"):
        medisee_source(tiny_profile, tmp_path, DEMO_TOKENIZER)


PREFIX = "base_model.model."
LAST_CLIP_BIAS = "encoder.layers.2.mlp.fc1.bias"


def test_a_folder_without_bin_files_is_refused(tiny_profile, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*\.bin"):
        medisee_source(tiny_profile, tmp_path, DEMO_TOKENIZER)


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"1536 pieces, .* profile full has 32000"):
        medisee_source(full_profile(), tmp_path, DEMO_TOKENIZER)


def test_pickled_code_in_a_checkpoint_is_not_run(tiny_profile, tmp_path):
    torch.save({"base_model.model.lm_head.weight": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="Weights only"):
        medisee_source(tiny_profile, tmp_path, DEMO_TOKENIZER)
    assert not Trap.sprung


class Trap:
    sprung = False

    def __setstate__(self, state):
        Trap.sprung = True

    def __getstate__(self):
        return {"any": 1}


PUBLISHED_SHAPES = {
    "model.embed_tokens.weight": (32002, 4096),
    "lm_head.weight": (32002, 4096),
    "model.norm.weight": (4096,),
    "model.layers.0.self_attn.q_proj.weight": (4096, 4096),
    "model.layers.31.self_attn.k_proj.weight": (1024, 4096),
    "model.layers.31.self_attn.v_proj.weight": (1024, 4096),
    "model.layers.31.mlp.gate_proj.weight": (14336, 4096),
    "model.layers.31.mlp.down_proj.weight": (4096, 14336),
    "model.layers.0.self_attn.q_proj.lora_A.default.weight": (8, 4096),
    "model.layers.0.self_attn.q_proj.lora_B.default.weight": (4096, 8),
    "model.layers.31.self_attn.v_proj.lora_A.default.weight": (8, 4096),
    "model.layers.31.self_attn.v_proj.lora_B.default.weight": (1024, 8),
    "model.mm_projector.0.weight": (4096, 1024),
    "model.mm_projector.2.weight": (4096, 4096),
    "model.text_hidden_fcs.0.0.weight": (4096, 4096),
    "model.text_hidden_fcs.0.2.weight": (256, 4096),
    "model.bbox_decoder.layers.0.weight": (512, 4096),
    "model.bbox_decoder.layers.1.weight": (512, 512),
    "model.bbox_decoder.layers.2.weight": (4, 512),
    "model.router_seg.gate.0.weight": (1024, 8192),
    "model.router_seg.gate.2.weight": (2, 1024),
    "model.router_box.gate.0.weight": (1024, 8192),
    "model.router_box.gate.2.weight": (2, 1024),
}


def test_the_full_profile_has_the_published_shapes():
    shapes = {name: tuple(shape) for name, shape in checkpoint_shapes(full_profile()).items()}
    assert {name: shapes.get(name) for name in PUBLISHED_SHAPES} == PUBLISHED_SHAPES

    def millions(part):
        return sum(np.prod(shape) for name, shape in shapes.items() if part in name) / 1e6

    assert sum("lora_" in name for name in shapes) == 128
    assert millions("lora_") == pytest.approx(3.41, abs=0.005)
    assert millions("text_hidden_fcs") == pytest.approx(17.83, abs=0.005)
    assert millions("bbox_decoder") == pytest.approx(2.36, abs=0.005)
    assert millions("router_seg") == pytest.approx(8.39, abs=0.005)


def test_the_full_profile_has_sams_and_clips_own_parameters(segment_anything):
    shapes = checkpoint_shapes(full_profile())
    with torch.device("meta"):
        sam = segment_anything.build_sam.sam_model_registry["vit_b"]()
        clip = CLIPVisionModel(full_profile().clip)
    of_sam = {name: shape for name, shape in shapes.items() if ".visual_model." in name}
    assert of_sam == {
        f"model.visual_model.{name}": tensor.shape for name, tensor in sam.state_dict().items()
    }
    tower = "model.vision_tower.vision_tower.vision_model."
    of_clip = {name: shape for name, shape in shapes.items() if ".vision_tower." in name}
    assert of_clip == {
        tower + name.removeprefix("vision_model."): tensor.shape
        for name, tensor in clip.state_dict().items()
    }


def test_the_manifest_tells_the_source(repository):
    manifest = json.loads((repository / "mllm" / "1" / "manifest.json").read_text())
    assert manifest["profile"] == "tiny"
    assert manifest["source"].startswith("MediSee's checkpoint")
