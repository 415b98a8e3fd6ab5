"""Every `config.pbtxt` against what must agree with it; read by Triton's own schema."""

import ast
import importlib
import inspect
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

ROOT = Path(__file__).parents[2]
REPOSITORIES = ("model_repository", "ensembles")
FILES = [path for folder in REPOSITORIES for path in sorted((ROOT / folder).glob("*/config.pbtxt"))]


def read(path):
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def names_of(paths):
    return [path.parent.name for path in paths]


CONFIGS = {path.parent.name: read(path) for path in FILES}
ENSEMBLES = [name for name, config in CONFIGS.items() if config.platform == "ensemble"]
PYTHON_MODELS = [name for name, config in CONFIGS.items() if config.backend == "python"]
ONNX_MODELS = [name for name, config in CONFIGS.items() if config.backend == "onnxruntime"]

READ_BY_ALL = {"calls", "artifacts", "max_in_flight"}
"""Parameters that the base class and the launcher read, not the pipeline."""

ONNX_TYPES = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
}


def folder_of(name):
    (path,) = [path.parent for path in FILES if path.parent.name == name]
    return path


def tensors(side):
    """Name -> (type, dims) of a config's inputs or outputs."""
    return {
        tensor.name: (model_config_pb2.DataType.Name(tensor.data_type), tuple(tensor.dims))
        for tensor in side
    }


def on_the_wire(config, side):
    """The same with the batch axis that requests to a batching model carry."""
    batch = (-1,) if config.max_batch_size > 0 else ()
    return {name: (kind, batch + dims) for name, (kind, dims) in tensors(side).items()}


def listed(config, key):
    return config.parameters[key].string_value.replace(",", " ").split()


def agree(one, other):
    return len(one) == len(other) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True)
    )


def pipeline_of(name):
    """The class a model's `1/model.py` names; the file itself imports Triton's API."""
    tree = ast.parse((folder_of(name) / "1" / "model.py").read_text(encoding="utf-8"))
    modules = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (model,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert model.name == "TritonPythonModel"
    (declared,) = [node for node in model.body if isinstance(node, ast.Assign)]
    assert declared.targets[0].id == "pipeline"
    return getattr(importlib.import_module(modules[declared.value.id]), declared.value.id)


def parts_of(pipeline):
    """The class, and the classes of its own package that it is made of."""
    module = importlib.import_module(pipeline.__module__)
    package = f"{module.__package__}."
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__.startswith(package)
    ]
    return {pipeline, *own} if module.__package__ != "serving" else {pipeline}


def test_both_repositories_have_models():
    assert {path.parents[1].name for path in FILES} == set(REPOSITORIES)
    assert {"medisee", "medisee_explain"} == set(ENSEMBLES)
    public = {path.parent.name for path in FILES if path.parents[1].name == "ensembles"}
    assert public == {*ENSEMBLES, "organseg", "mediround"}


def test_no_two_models_share_a_name():
    assert len(CONFIGS) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=names_of(FILES))
def test_a_folder_is_named_as_its_model(path):
    assert read(path).name == path.parent.name


@pytest.mark.parametrize("path", FILES, ids=names_of(FILES))
def test_every_instance_group_has_a_count(path):
    config = read(path)
    if config.platform == "ensemble":
        assert not config.instance_group
        return
    assert config.instance_group
    for group in config.instance_group:
        assert group.count >= 1
        assert group.kind != model_config_pb2.ModelInstanceGroup.KIND_AUTO


@pytest.mark.parametrize("path", FILES, ids=names_of(FILES))
def test_every_tensor_has_a_name_a_type_and_dims(path):
    config = read(path)
    for side in (config.input, config.output):
        assert len(tensors(side)) == len(side) > 0
        for name, (kind, dims) in tensors(side).items():
            assert name.isidentifier()
            assert kind != "TYPE_INVALID"
            assert dims
            assert all(size == -1 or size > 0 for size in dims)


@pytest.mark.parametrize("folder", REPOSITORIES)
def test_a_repository_holds_folders_of_models_only(folder):
    # A Python file there brings __pycache__, which Triton takes for a broken model and exits.
    for entry in (ROOT / folder).iterdir():
        assert entry.is_dir(), entry
        assert (entry / "config.pbtxt").is_file(), entry


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_model_has_a_version_folder_in_the_checkout(name):
    # Ensembles and attached models have no files of their own; Triton wants the folder.
    if name in ENSEMBLES or not CONFIGS[name].parameters["artifacts"].string_value:
        version = folder_of(name) / "1"
        assert version.is_dir() or name in ONNX_MODELS


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_edge_of_an_ensemble_joins_tensors_of_one_type_and_shape(name):
    config = CONFIGS[name]
    made = on_the_wire(config, config.input)
    for step in config.ensemble_scheduling.step:
        assert step.model_name in CONFIGS, step.model_name
        called = CONFIGS[step.model_name]
        outputs = on_the_wire(called, called.output)
        assert set(step.output_map) <= set(outputs), step.model_name
        for tensor, edge in step.output_map.items():
            assert edge not in made, f"{edge} is written twice"
            made[edge] = outputs[tensor]
    read_edges = set()
    for step in config.ensemble_scheduling.step:
        called = CONFIGS[step.model_name]
        inputs = on_the_wire(called, called.input)
        needed = {tensor.name for tensor in called.input if not tensor.optional}
        assert needed <= set(step.input_map) <= set(inputs), step.model_name
        for tensor, edge in step.input_map.items():
            read_edges.add(edge)
            kind, dims = made[edge]
            assert (kind, True) == (inputs[tensor][0], agree(dims, inputs[tensor][1])), (
                f"{step.model_name}: {edge} {kind} {dims} into {tensor} {inputs[tensor]}"
            )
    for tensor, (kind, dims) in on_the_wire(config, config.output).items():
        assert kind == made[tensor][0]
        assert agree(dims, made[tensor][1])
        read_edges.add(tensor)
    assert set(made) == read_edges, "a tensor that nobody reads"


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_has_one_first_step(name):
    # Triton deadlocks where one of several first steps fails at once; docs/architecture.md.
    config = CONFIGS[name]
    outside = {tensor.name for tensor in config.input}
    first = [
        step.model_name
        for step in config.ensemble_scheduling.step
        if outside & set(step.input_map.values())
    ]
    assert first == ["checked_request"]


@pytest.mark.parametrize("name", ENSEMBLES)
def test_steps_that_start_side_by_side_do_not_refuse(name):
    # Triton crashes where one of them fails at once; docs/architecture.md.
    steps = CONFIGS[name].ensemble_scheduling.step
    (first,) = [step for step in steps if step.model_name == "checked_request"]
    made = set(first.output_map.values())
    beside = [s.model_name for s in steps if s is not first and set(s.input_map.values()) <= made]
    assert len(beside) > 1
    for model in set(beside) & set(PYTHON_MODELS):
        assert CONFIGS[model].parameters["max_in_flight"].string_value == "512", model


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_is_decoupled_exactly_when_one_of_its_steps_is(name):
    config = CONFIGS[name]
    steps = [CONFIGS[step.model_name] for step in config.ensemble_scheduling.step]
    any_step = any(step.model_transaction_policy.decoupled for step in steps)
    assert config.model_transaction_policy.decoupled == any_step


def test_the_mask_path_has_no_decoupled_model():
    assert not CONFIGS["medisee"].model_transaction_policy.decoupled


@pytest.mark.parametrize("name", PYTHON_MODELS)
def test_a_pipeline_takes_the_inputs_of_its_config(name):
    config = CONFIGS[name]
    parameters = inspect.signature(pipeline_of(name).__call__).parameters
    names = set(parameters) - {"self", "is_cancelled", "sequence"}
    assert names == {tensor.name for tensor in config.input}
    for tensor in config.input:
        assert tensor.optional == (parameters[tensor.name].default is not inspect.Parameter.empty)
        text = parameters[tensor.name].annotation in (str, str | None)
        # Several texts come as an array of bytes.
        one_text = tensor.data_type == model_config_pb2.TYPE_STRING and list(tensor.dims) == [1]
        assert text == one_text


@pytest.mark.parametrize("name", PYTHON_MODELS)
def test_a_pipeline_is_built_from_the_parameters_of_its_config(name):
    declared = set(inspect.signature(pipeline_of(name)).parameters)
    given = set(CONFIGS[name].parameters) - READ_BY_ALL
    assert given <= declared
    assert declared - given <= {"version_folder", "call", "sequence_idle_s"}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_models_that_a_config_declares_to_call_exist(name):
    config = CONFIGS[name]
    for called in listed(config, "calls"):
        assert called in CONFIGS
        assert called != name
    owner = config.parameters["attached_to"].string_value
    if owner:
        assert owner in listed(config, "calls")


@pytest.mark.parametrize("name", PYTHON_MODELS)
def test_a_pipeline_calls_exactly_what_its_config_declares_with_tensors_that_exist(name):
    pipeline = pipeline_of(name)
    calls = [
        node
        for part in parts_of(pipeline)
        for node in ast.walk(ast.parse(inspect.getsource(part)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("call", "_call")
    ]
    assert {node.args[0].value for node in calls} == set(listed(CONFIGS[name], "calls"))
    for node in calls:
        called = CONFIGS[node.args[0].value]
        needed = {tensor.name for tensor in called.input if not tensor.optional}
        given = {key.value for key in node.args[1].keys}
        assert needed <= given <= set(tensors(called.input))
        assert {item.value for item in node.args[2].elts} <= set(tensors(called.output))


@pytest.mark.parametrize("name", ONNX_MODELS)
def test_an_exported_graph_has_the_tensors_of_its_config(name):
    file = folder_of(name) / "1" / "model.onnx"
    if not file.is_file():
        pytest.skip(f"{name} is not exported: python -m export --profile demo")
    config = CONFIGS[name]
    graph = onnx.load(file, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    for nodes, side in (
        ([node for node in graph.input if node.name not in weights], config.input),
        (graph.output, config.output),
    ):
        found = {
            node.name: (
                ONNX_TYPES[node.type.tensor_type.elem_type],
                tuple(
                    size.dim_value if size.HasField("dim_value") else -1
                    for size in node.type.tensor_type.shape.dim
                ),
            )
            for node in nodes
        }
        expected = on_the_wire(config, side)
        assert list(found) == list(expected)
        for tensor, (kind, dims) in expected.items():
            assert found[tensor][0] == kind
            assert agree(found[tensor][1], dims), f"{tensor}: {found[tensor][1]} for {dims}"
            if config.max_batch_size > 0:
                assert found[tensor][1][0] == -1, f"{tensor}: the batch axis is fixed"
