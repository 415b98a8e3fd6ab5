import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor
from transformers import MistralForCausalLM

from export.random_source import random_source, write_filled_tokenizer
from training.networks.profiles import profile
from training.run import WEIGHTS
from training.weights_folder import TOKENIZER

DEMO_TOKENIZER = WEIGHTS / TOKENIZER


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    write_filled_tokenizer(DEMO_TOKENIZER, 32000, file)
    return SentencePieceProcessor(model_file=str(file))


def test_a_filled_tokenizer_splits_text_as_before_and_has_a_text_for_every_id(filled):
    demo = SentencePieceProcessor(model_file=str(DEMO_TOKENIZER))
    assert filled.get_piece_size() == 32000
    for text in ("Where is the thalamus?", "w1536 w31999 \N{BRAIN} ", "\n [INST] w2000w2001"):
        assert filled.encode(text) == demo.encode(text)
    assert filled.decode([demo.encode("thalamus")[0], 1536, 31999]).endswith("w1536 w31999")
    assert filled.bos_id() == 1
    assert filled.eos_id() == 2


def test_a_tokenizer_is_never_cut(tmp_path):
    with pytest.raises(ValueError, match="1536 pieces, expected 1000 at most"):
        write_filled_tokenizer(DEMO_TOKENIZER, 1000, tmp_path / "tokenizer.model")


@torch.no_grad()
def test_random_language_model_gives_finite_words():
    source = random_source("demo")
    model = source.language_model
    network = MistralForCausalLM(source.profile.mistral).to(torch.bfloat16).eval()
    network.load_state_dict(dict(model.tensors()))
    logits = network(torch.arange(256)[None]).logits
    assert logits.isfinite().all()
    assert logits.float().std() > 1e-3
    assert model.embeddings["medisee"].shape == (1538, 256)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.adapters["medisee"].state.items()}
    layer = "base_model.model.model.layers.3.self_attn.v_proj"
    assert shapes[f"{layer}.lora_A.weight"] == (32, 256)
    assert shapes[f"{layer}.lora_B.weight"] == (128, 32)


def test_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (random_source("demo", seed) for seed in (3, 3, 4))
    name = "model.layers.0.mlp.up_proj.weight"
    weights = [dict(source.language_model.tensors())[name] for source in (first, again, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    image = [source.networks.image_encoder.state_dict() for source in (first, again, other)]
    assert all(tensor.equal(image[1][key]) for key, tensor in image[0].items())
    assert not all(tensor.equal(image[2][key]) for key, tensor in image[0].items())


def test_random_networks_are_alive_in_every_part():
    source = random_source("demo")
    for network in source.networks.modules().values():
        for name, parameter in network.named_parameters():
            spread = parameter.std(correction=0) if parameter.numel() > 1 else parameter.abs()
            assert spread > 1e-3 or (parameter == 1).all(), name
    # The frequencies of SAM's positions have a scale of one.
    frequencies = (
        source.networks.medisee.mask_decoder.prompt_encoder.shared_embedding.positional_embedding
    )
    assert 0.5 < frequencies.std() < 2


def test_the_mixed_profile_has_sam_at_full_size_and_the_demos_language_branch():
    mixed, full, demo = profile("full-sam"), profile("full"), profile("demo")
    assert mixed.sam_vision == full.sam_vision
    assert mixed.sam_decoder == full.sam_decoder
    assert mixed.mistral.to_dict() == demo.mistral.to_dict()
    assert mixed.clip.to_dict() == demo.clip.to_dict()


@pytest.mark.slow
@torch.no_grad()
def test_the_full_size_image_encoder_computes_as_onnx_what_it_computes_in_torch(tmp_path):
    import onnxruntime as ort

    from export.build import build

    source = random_source("full-sam")
    build(source, tmp_path, models=["medsam_image_encoder"], say=lambda line: None)
    file = tmp_path / "medsam_image_encoder" / "1" / "model.onnx"
    pixels = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    expected = source.networks.image_encoder(pixels).numpy()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    (embedding,) = ort.InferenceSession(str(file), options).run(None, {"pixels": pixels.numpy()})
    np.testing.assert_allclose(embedding, expected, atol=1e-3 * np.abs(expected).max())
