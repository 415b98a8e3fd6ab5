"""Reading `config.pbtxt`."""

import json

import numpy as np
import pytest

from serving import model_config

TEXT = """
name: "a" backend: "python" max_batch_size: 4
input [{ name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] },
       { name: "prompt" data_type: TYPE_STRING dims: [ 1 ] optional: true }]
output [{ name: "scores" data_type: TYPE_FP32 dims: [ -1 ] }]
parameters { key: "calls" value { string_value: "b, c" } }
model_transaction_policy { decoupled: true }
"""


def test_names_types_dims_and_parameters_are_read():
    config = model_config.parse(TEXT)
    assert config.input_names == ("image", "prompt")
    assert config.input("image").dims == (-1, -1, 3)
    assert config.input("image").numpy_dtype == np.uint8
    assert config.input("prompt").wire_type == "BYTES"
    assert config.input("prompt").optional
    assert config.output("scores").wire_type == "FP32"
    assert (config.max_batch_size, config.decoupled, config.is_ensemble) == (4, True, False)
    assert config.dependencies == ("b", "c")


def test_an_unknown_tensor_is_told_with_those_there_are():
    with pytest.raises(LookupError, match="'mask' is not an output of model 'a': scores"):
        model_config.parse(TEXT).output("mask")


def test_a_type_numpy_lacks_is_told():
    spec = model_config.TensorSpec("x", "TYPE_BF16", (1,))
    with pytest.raises(ValueError, match="TYPE_BF16"):
        _ = spec.numpy_dtype


def test_the_json_form_of_a_newer_server_reads_the_same():
    sent = {
        "name": "a",
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", 3]}],
        "parameters": {"calls": {"string_value": "b"}},
        "field_of_next_year": 1,
    }
    config = model_config.from_json(json.dumps(sent))
    assert config.input("x").dims == (-1, 3)
    assert config.dependencies == ("b",)


def test_an_ensembles_steps_are_its_dependencies_once_each():
    step = '{ model_name: "b" input_map { key: "x" value: "y" } }'
    text = f'name: "e" platform: "ensemble" ensemble_scheduling {{ step [{step}, {step}] }}'
    config = model_config.parse(text)
    assert config.is_ensemble
    assert [found.input_map for found in config.steps] == [{"x": "y"}, {"x": "y"}]
    assert config.dependencies == ("b",)


def test_the_served_version_is_the_highest_number(tmp_path):
    for version in ("2", "10", "old"):
        (tmp_path / "a" / version).mkdir(parents=True)
    (tmp_path / "a" / "config.pbtxt").write_text(TEXT)
    assert model_config.read("a", [tmp_path]).version_folder.name == "10"


def test_a_name_unlike_the_folders_is_refused(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.pbtxt").write_text(TEXT)
    with pytest.raises(ValueError, match="says name 'a'"):
        model_config.read("b", [tmp_path])


def test_an_unknown_model_is_told_with_the_repositories(tmp_path):
    with pytest.raises(LookupError, match=f"no model 'z' in {tmp_path}"):
        model_config.read("z", [tmp_path])
