"""Choosing models and finding missing files, before a server starts."""

import json
from pathlib import Path

import pytest

from serving import model_selection
from serving.errors import LaunchError


def write(repository: Path, name: str, config: str) -> Path:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(f'name: "{name}"\n{config}')
    return version


ENSEMBLE = """platform: "ensemble" ensemble_scheduling { step [
  { model_name: "a" input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }] }"""
CALLING = 'backend: "python" parameters { key: "calls" value { string_value: "b" } }'


def test_steps_and_callees_are_added_and_nothing_else(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, "whole", ENSEMBLE)
    write(second, "a", CALLING)
    write(second, "b", 'backend: "onnxruntime"')
    write(second, "unused", 'backend: "onnxruntime"')
    assert list(model_selection.select([first, second], ["whole"])) == ["a", "b", "whole"]
    assert len(model_selection.select([first, second])) == 4


def test_a_model_that_is_not_there_is_named_with_the_one_that_needs_it(tmp_path):
    write(tmp_path, "whole", ENSEMBLE)
    with pytest.raises(LaunchError, match=r"'a', which 'whole' needs, is not in .*there are whole"):
        model_selection.select([tmp_path])


def test_models_that_call_each_other_in_a_ring_are_each_taken_once(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        write(tmp_path, name, CALLING.replace('"b"', f'"{other}"'))
    assert list(model_selection.select([tmp_path], ["a"])) == ["a", "b"]


def test_one_name_in_two_repositories_is_refused(tmp_path):
    for folder in ("first", "second"):
        write(tmp_path / folder, "a", CALLING)
    with pytest.raises(LaunchError, match="two models are called 'a'"):
        model_selection.select([tmp_path / "first", tmp_path / "second"])


def test_a_misspelt_field_is_told_with_file_and_line(tmp_path):
    write(tmp_path, "a", "max_batch_sise: 3")
    with pytest.raises(LaunchError, match=r'a/config.pbtxt:2:1 : .*"max_batch_sise"'):
        model_selection.select([tmp_path])


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ('backend: "onnxruntime"', ["model.onnx"]),
        ('backend: "onnxruntime" default_model_filename: "net.onnx"', ["net.onnx"]),
        ('backend: "python"', ["model.py"]),
        ('backend: "mllm"', []),
        (
            'backend: "mllm" parameters { key: "artifacts" value { '
            'string_value: "engine.json, base/config.json" } }',
            ["engine.json", "base/config.json"],
        ),
    ],
)
def test_the_file_a_backend_opens_and_the_listed_artifacts_must_be_there(tmp_path, config, missing):
    version = write(tmp_path, "a", config)
    [found] = model_selection.select([tmp_path]).values()
    assert model_selection.missing_files(found) == [version / name for name in missing]
    for name in missing:
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).touch()
    assert model_selection.missing_files(found) == []


def test_an_ensemble_needs_its_version_folder(tmp_path):
    version = write(tmp_path, "whole", 'platform: "ensemble"')
    [found] = model_selection.select([tmp_path]).values()
    assert model_selection.missing_files(found) == []
    version.rmdir()
    assert model_selection.missing_files(found) == [version / ".gitkeep"]


def test_a_file_of_the_manifest_that_is_gone_is_missing(tmp_path):
    version = write(tmp_path, "a", 'backend: "onnxruntime"')
    (version / "model.onnx").touch()
    listed = {"model.onnx": "00", "weights.bin": "00"}
    (version / "manifest.json").write_text(json.dumps({"sha256": listed}))
    [found] = model_selection.select([tmp_path]).values()
    assert model_selection.missing_files(found) == [version / "weights.bin"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 3}'])
def test_a_broken_manifest_is_told_with_the_command(tmp_path, text):
    version = write(tmp_path, "a", 'backend: "onnxruntime"')
    (version / "manifest.json").write_text(text)
    [found] = model_selection.select([tmp_path]).values()
    with pytest.raises(LaunchError, match=r"manifest.json is not a manifest .*python -m export"):
        model_selection.missing_files(found)


def test_missing_files_are_told_with_the_model_and_the_command(tmp_path):
    version = write(tmp_path, "a", 'backend: "onnxruntime"')
    with pytest.raises(LaunchError) as caught:
        model_selection.check_files(model_selection.select([tmp_path]).values())
    assert str(caught.value).splitlines() == [
        f"model 'a' lacks {version / 'model.onnx'}",
        "build what is missing: python -m export --profile demo",
    ]
