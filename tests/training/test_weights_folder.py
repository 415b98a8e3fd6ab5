"""Folders of weights: every system comes back as it was saved, in half precision."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import MistralForCausalLM

from training.networks.mediround import MediRound
from training.networks.medisee import MediSee
from training.networks.organseg import OrganSeg
from training.weights_folder import OWN_PARTS, load_base_state, load_weights, save_weights

SYSTEMS = {"medisee": MediSee, "mediround": MediRound, "organseg": OrganSeg}


@pytest.fixture(scope="module")
def networks(tiny_profile):
    """One of each, with the same shared parts."""
    torch.manual_seed(0)
    networks = {name: system(tiny_profile) for name, system in SYSTEMS.items()}
    with torch.no_grad():  # LoRA's B and the box decoder's last layer start at zero
        for network in networks.values():
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    first = networks["medisee"]
    for network in networks.values():
        for part in ("image_encoder", "llava_image_encoder"):
            getattr(network, part).load_state_dict(getattr(first, part).state_dict())
        own = network.base.state_dict()
        shared = {k: v for k, v in first.base.state_dict().items() if "lora_" not in k}
        network.base.load_state_dict(own | shared)
    return networks


@pytest.fixture(scope="module")
def network(networks):
    return networks["medisee"]


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "new"
    for network in networks.values():
        save_weights(network, folder)
    return folder


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_saved_network_comes_back_rounded_to_half_precision(networks, name, folder, tiny_profile):
    network = networks[name]
    loaded = load_weights(SYSTEMS[name](tiny_profile), folder)
    expected = network.state_dict()
    state = loaded.state_dict()
    assert state.keys() == expected.keys()
    for key, tensor in state.items():
        if key.startswith("lm_head."):  # of the system's own, which nothing served reads
            continue
        assert tensor.dtype == expected[key].dtype, key
        torch.testing.assert_close(
            tensor, expected[key].half().to(tensor.dtype), rtol=0, atol=0, msg=key
        )
    assert not loaded.training


def test_saving_what_was_loaded_changes_nothing(folder, tiny_profile, tmp_path):
    for system in SYSTEMS.values():
        save_weights(load_weights(system(tiny_profile), folder), tmp_path)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.safetensors"))
    assert len(files) == 9
    for file in files:
        one, other = load_file(folder / file), load_file(tmp_path / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file


def test_every_part_of_a_system_has_a_place(networks):
    shared = {"image_encoder", "llava_image_encoder", "mllm", "lm_head"}
    for network in networks.values():
        parts = {name for name, _ in network.named_children()}
        assert parts - shared == set(OWN_PARTS[type(network)])


def test_every_tensor_is_stored_in_half_precision(folder):
    for file in folder.rglob("*.safetensors"):
        kinds = {tensor.dtype for tensor in load_file(file).values()}
        assert kinds <= {torch.float16, torch.int64}, file


def test_the_base_is_a_hugging_face_folder_of_its_own(network, folder):
    base = MistralForCausalLM.from_pretrained(folder / "mllm_base", dtype=torch.float32).eval()
    assert "lora" not in str(sorted(base.state_dict()))
    ids = torch.tensor([[1, 5, 9, 700]])
    network.eval()
    with torch.no_grad(), network.mllm.disable_adapter():
        expected = network.mllm(input_ids=ids).logits
        torch.testing.assert_close(base(input_ids=ids).logits, expected, rtol=0.02, atol=0.02)


def test_the_adapter_is_a_peft_folder_without_the_base(network, folder, tiny_profile):
    config = json.loads((folder / "medisee_adapter" / "adapter_config.json").read_text())
    rank, alpha = tiny_profile.lora_rank, tiny_profile.lora_alpha
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", rank, alpha)
    assert set(config["target_modules"]) == {"q_proj", "v_proj"}
    state = load_file(folder / "medisee_adapter" / "adapter_model.safetensors")
    layers = tiny_profile.mistral.num_hidden_layers
    assert len(state) == layers * 2 * 2
    assert all("lora_A.weight" in name or "lora_B.weight" in name for name in state)


def test_a_missing_file_is_named_with_the_command_that_makes_it(folder, tiny_profile, tmp_path):
    for file in folder.rglob("*"):
        target = tmp_path / file.relative_to(folder)
        if file.is_file() and file.name != "medisee.safetensors":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"medisee\.safetensors.*python -m training\.run"):
        load_weights(MediSee(tiny_profile), tmp_path)


def test_base_weights_of_another_shape_or_name_are_refused(tiny_profile, folder):
    network = MediSee(tiny_profile)
    state = {k: v.float() for k, v in load_file(folder / "mllm_base/model.safetensors").items()}
    first = next(iter(state))
    with pytest.raises(ValueError, match="missing"):
        load_base_state(network, {k: v for k, v in state.items() if k != first})
    with pytest.raises(ValueError, match="unknown"):
        load_base_state(network, state | {"model.extra.weight": state[first]})
