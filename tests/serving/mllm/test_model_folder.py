import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.mllm.model_folder import read_model_folder, read_settings
from tests.serving.mllm.tiny_mllm import HIDDEN, OWN_TABLE, SHARED_TABLE, write_model_folder


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"model": "x"}, "`model` may not be set"),
        ({"kv_transfer_config": {}}, "returns the hidden states"),
        ({"max_in_flight": 0}, "max_in_flight is 0"),
        ({"restart_window_s": -1}, "restart_window_s is -1"),
    ],
)
def test_settings_of_the_backend_itself_are_refused(tmp_path, settings, text):
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match=text):
        read_settings(path)


def test_settings_that_are_not_ours_go_to_the_engine(tmp_path):
    path = tmp_path / "engine.json"
    path.write_text('{"dtype": "bfloat16", "max_in_flight": 3, "environment": {"A": 1}}')
    settings = read_settings(path)
    assert settings.arguments == {"dtype": "bfloat16"}
    assert settings.max_in_flight == 3
    assert settings.environment == {"A": "1"}


@pytest.fixture(scope="module")
def version_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mllm")
    write_model_folder(folder)
    return folder


def test_a_folder_is_read_whole(version_folder):
    folder = read_model_folder(version_folder)
    assert list(folder.adapters) == [OWN_TABLE, SHARED_TABLE]
    assert folder.table(SHARED_TABLE) is folder.table("")
    assert len(folder.table(OWN_TABLE)) == len(folder.table("")) + 2
    assert folder.adapted_modules == ("q_proj", "v_proj")
    assert folder.norm_weight.shape == (HIDDEN,)
    assert (folder.num_layers, folder.eos_token_ids) == (3, (2,))


def test_a_table_that_belongs_to_no_adapter_is_refused(version_folder):
    table = version_folder / "embeddings" / f"{OWN_TABLE}.safetensors"
    other = table.with_name("lung.safetensors")
    other.write_bytes(table.read_bytes())
    try:
        with pytest.raises(ValueError, match=f"known: {OWN_TABLE}, {SHARED_TABLE}"):
            read_model_folder(version_folder)
    finally:
        other.unlink()


def test_a_missing_part_is_named_with_the_command_that_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"engine\.json is missing; `python -m export"):
        read_model_folder(tmp_path)


def test_an_adapter_of_the_token_embedding_is_refused(version_folder, tmp_path):
    shutil.copytree(version_folder, tmp_path / "1")
    file = tmp_path / "1" / "adapters" / OWN_TABLE / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.zeros(8, 4)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=rf"adapters/{OWN_TABLE}: .*embeddings/{OWN_TABLE}\."):
        read_model_folder(tmp_path / "1")
