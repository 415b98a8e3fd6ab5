"""One component network -> `model.onnx`, with the names and free sizes of its config.pbtxt.

Writes through torch's TorchScript exporter: its newer one cannot follow output sizes that come
from a tensor, as the mask decoder's do (`original_size`).
"""

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from serving.model_config import ModelConfig

OPSET = 18

ITEMS = 2
"""Size of an example where the number of items is free behind the first axis, too."""


def export_onnx(
    component: nn.Module, config: ModelConfig, inputs: dict[str, Tensor], file: Path
) -> None:
    """Trace a component and write it.

    Args:
        component: Takes the config's inputs in order and returns its outputs in order.
        config: The model's configuration: names, and which sizes stay free.
        inputs: Example tensors by input name, with the batch dimension where the model has one.
        file: `model.onnx` to write; weights beyond 2 GB go to a file beside it.

    Raises:
        ValueError: if the example inputs are not the config's.
    """
    if tuple(inputs) != config.input_names:
        raise ValueError(
            f"{config.name}: config.pbtxt has inputs {config.input_names}, "
            f"the export brings {list(inputs)}"
        )
    batched = config.max_batch_size > 0
    axes: dict[str, dict[int, str]] = {}
    for spec in (*config.inputs, *config.outputs):
        dims = [-1, *spec.dims] if batched else list(spec.dims)
        axes[spec.name] = {i: f"{spec.name}_{i}" for i, size in enumerate(dims) if size == -1}
    # Of inputs, only numbers of items vary, which stand in front: a network's own sizes, and the
    # last axis is always one, are constants of its graph.
    free = {spec.name: axes[spec.name] for spec in config.outputs}
    for name, example in inputs.items():
        numbers: dict[int, str] = {}
        while len(numbers) in axes[name] and len(numbers) < example.ndim - 1:
            numbers[len(numbers)] = axes[name][len(numbers)]
        if numbers:
            free[name] = numbers
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            component.eval(),
            tuple(inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=list(config.output_names),
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(file))
