"""Reads `config.pbtxt`, the one hand-written statement of a model's tensors, into plain values.

Exporters, backends, the launcher, benchmarks and tests ask here for names, types and dimensions.
Knows nothing of running servers or of files in version folders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

ROOT = Path(__file__).resolve().parent.parent
"""Root of the checkout."""

MODEL_REPOSITORY = ROOT / "model_repository"
"""Component models; their version folders are written by the export."""

REPOSITORIES = (MODEL_REPOSITORY, ROOT / "ensembles")
"""The two Triton model repositories: components, then public pipelines."""

_NUMPY: dict[str, type] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    """Tensor name; also the name of the pipeline's parameter."""
    data_type: str
    """Triton's name in configurations, such as `TYPE_FP32`; BYTES tensors are `TYPE_STRING`."""
    dims: tuple[int, ...]
    """Dimensions without the batch axis; -1 is any size."""
    optional: bool = False
    """True for an input that a request may leave out."""

    @property
    def numpy_dtype(self) -> np.dtype:
        """NumPy type of the tensor; BYTES are `object`."""
        if self.data_type not in _NUMPY:
            raise ValueError(f"tensor {self.name!r} has type {self.data_type}, unknown to NumPy")
        return np.dtype(_NUMPY[self.data_type])

    @property
    def wire_type(self) -> str:
        """Name of the type in the KServe v2 protocol, such as `FP32` or `BYTES`."""
        return "BYTES" if self.data_type == "TYPE_STRING" else self.data_type.removeprefix("TYPE_")


@dataclass(frozen=True)
class EnsembleStep:
    """One step of an ensemble."""

    model_name: str
    """Model that runs the step."""
    input_map: dict[str, str]
    """Tensor of the step's model -> tensor of the ensemble it reads."""
    output_map: dict[str, str]
    """Tensor of the step's model -> tensor of the ensemble it writes."""


@dataclass(frozen=True)
class ModelConfig:
    """A parsed `config.pbtxt`."""

    proto: model_config_pb2.ModelConfig
    """The whole message, for the fields that have no property here."""
    folder: Path | None = None
    """The model's folder; None when the configuration came from a running server."""

    @property
    def name(self) -> str:
        """The model's name; a `config.pbtxt` without one takes its folder's, as Triton does."""
        return self.proto.name or (self.folder.name if self.folder else "")

    @property
    def backend(self) -> str:
        """Backend name; empty for ensembles."""
        return self.proto.backend

    @property
    def is_ensemble(self) -> bool:
        """True for `platform: "ensemble"`."""
        return self.proto.platform == "ensemble"

    @property
    def max_batch_size(self) -> int:
        """0: tensors have exactly the stated dims; above 0: a batch axis stands in front."""
        return self.proto.max_batch_size

    @property
    def decoupled(self) -> bool:
        """True when a request may get any number of responses."""
        return self.proto.model_transaction_policy.decoupled

    @property
    def has_sequences(self) -> bool:
        """True when requests belong to sequences, each with a correlation id."""
        return self.proto.HasField("sequence_batching")

    @property
    def sequence_idle_s(self) -> float:
        """Seconds after which Triton gives up a sequence that nobody continues."""
        return self.proto.sequence_batching.max_sequence_idle_microseconds / 1e6

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the order of the file."""
        return tuple(_tensor_spec(tensor) for tensor in self.proto.input)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the order of the file."""
        return tuple(_tensor_spec(tensor) for tensor in self.proto.output)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(tensor.name for tensor in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(tensor.name for tensor in self.outputs)

    def input(self, name: str) -> TensorSpec:
        """The input of that name."""
        return _named(self.inputs, name, f"input of model {self.name!r}")

    def output(self, name: str) -> TensorSpec:
        """The output of that name."""
        return _named(self.outputs, name, f"output of model {self.name!r}")

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Values of the `parameters` block; Triton knows strings only."""
        return {key: value.string_value for key, value in self.proto.parameters.items()}

    def listed_parameter(self, key: str) -> tuple[str, ...]:
        """Items of a comma-separated parameter, such as `calls: "a, b"`; empty when absent."""
        return comma_separated(self.parameters.get(key, ""))

    @cached_property
    def steps(self) -> tuple[EnsembleStep, ...]:
        """Steps of an ensemble; empty for other models."""
        return tuple(
            EnsembleStep(step.model_name, dict(step.input_map), dict(step.output_map))
            for step in self.proto.ensemble_scheduling.step
        )

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Models this one needs: steps of an ensemble, and those its parameter `calls` lists."""
        names = (*(step.model_name for step in self.steps), *self.listed_parameter("calls"))
        return tuple(dict.fromkeys(names))

    @property
    def version_folder(self) -> Path:
        """The numbered folder Triton serves: the highest one, `1` when there is none yet."""
        if self.folder is None:
            raise ValueError(f"model {self.name!r} was not read from a folder")
        if not self.folder.is_dir():
            return self.folder / "1"
        numbers = [int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit()]
        return self.folder / str(max(numbers, default=1))


def parse(text: str, folder: Path | None = None) -> ModelConfig:
    """Parse the text of a `config.pbtxt`.

    Raises:
        ValueError: A field that Triton does not know, or a value of the wrong type.
    """
    try:
        proto = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        place = folder / "config.pbtxt" if folder else "config.pbtxt"
        raise ValueError(f"{place}:{error}") from error
    return ModelConfig(proto, folder)


def from_json(text: str) -> ModelConfig:
    """Parse the JSON form that Triton hands to Python models as `args["model_config"]`."""
    # A newer server may send fields this client library has not heard of.
    message = model_config_pb2.ModelConfig()
    return ModelConfig(json_format.Parse(text, message, ignore_unknown_fields=True))


def read_folder(folder: Path) -> ModelConfig:
    """Read the `config.pbtxt` of one model folder."""
    path = folder / "config.pbtxt"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: every model here has a hand-written config")
    config = parse(path.read_text(encoding="utf-8"), folder)
    if config.name != folder.name:
        raise ValueError(f"{path} says name {config.name!r}; Triton wants the folder's name")
    return config


def read_all(repositories: Sequence[Path] = REPOSITORIES) -> dict[str, ModelConfig]:
    """Read every model of the repositories, by name.

    Raises:
        ValueError: Two repositories hold a model of one name, or a file does not parse.
    """
    configs: dict[str, ModelConfig] = {}
    for repository in repositories:
        if not repository.is_dir():
            raise FileNotFoundError(f"model repository {repository} is not a folder")
        for path in sorted(repository.glob("*/config.pbtxt")):
            config = read_folder(path.parent)
            if config.name in configs:
                first = configs[config.name].folder
                raise ValueError(f"two models are called {config.name!r}: {first}, {path.parent}")
            configs[config.name] = config
    return configs


def read(name: str, repositories: Sequence[Path] = REPOSITORIES) -> ModelConfig:
    """Read one model by name from the first repository that has it.

    Raises:
        LookupError: No repository holds the model.
    """
    for repository in repositories:
        if (repository / name / "config.pbtxt").is_file():
            return read_folder(repository / name)
    places = ", ".join(str(repository) for repository in repositories)
    raise LookupError(f"no model {name!r} in {places}")


def _tensor_spec(
    tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput,
) -> TensorSpec:
    return TensorSpec(
        name=tensor.name,
        data_type=model_config_pb2.DataType.Name(tensor.data_type),
        dims=tuple(tensor.dims),
        optional=getattr(tensor, "optional", False),
    )


def _named(tensors: tuple[TensorSpec, ...], name: str, what: str) -> TensorSpec:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise LookupError(f"{name!r} is not an {what}: {', '.join(spec.name for spec in tensors)}")


def comma_separated(text: str) -> tuple[str, ...]:
    """Items of "a, b": without spaces around them, and none empty."""
    return tuple(item.strip() for item in text.split(",") if item.strip())
