"""Checkpoints of CoTexNet in its authors' layout, one per task -> one network.

Names and shapes follow the released code (commit 5999d3f, `main.py` and `model/`); no weights have
been published. Every file carries the whole frozen CLIP, the image side twice: the same in all of
them, which is checked, as the server keeps it once.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from export.torch_files import check_tensors
from training.networks.cotexnet.head import planes_of
from training.networks.cotexnet.network import CoTexNet
from training.networks.cotexnet.profile import CoTexNetProfile

_CLIPSEG = "clipsegp.clipseg."
_VISION, _TEXT = f"{_CLIPSEG}clip.vision_model.", f"{_CLIPSEG}clip.text_model."
_SECOND_VISION = "im2text.vision_model."
_MAP, _SECOND_MAP = f"{_CLIPSEG}img_projection.", "img_projection."

_CLIP_NAMES = {
    "image_encoder.embeddings.": f"{_VISION}embeddings.",
    "image_encoder.first_norm.": f"{_VISION}pre_layrnorm.",
    "image_encoder.layers.": f"{_VISION}encoder.layers.",
    "text_encoder.embeddings.": f"{_TEXT}embeddings.",
    "text_encoder.layers.": f"{_TEXT}encoder.layers.",
    "text_encoder.last_norm.": f"{_TEXT}final_layer_norm.",
    "text_encoder.projection.": f"{_CLIPSEG}clip.text_projection.",
}
_HEAD_NAMES = {
    "class_token_map.layers.0.": f"{_MAP}layers.0.0.",
    "class_token_map.layers.2.": f"{_MAP}layers.1.0.",
    "class_token_map.layers.4.": f"{_MAP}fc_out.",
    "inverse_z_score.scale": f"{_CLIPSEG}var",
    "inverse_z_score.shift": f"{_CLIPSEG}mean",
    "decoder.convolution.": f"{_CLIPSEG}decoder.transposed_convolution.0.",
    "decoder.expansion.": f"{_CLIPSEG}decoder.transposed_convolution.2.",
    "decoder.": f"{_CLIPSEG}decoder.",
}
_BINARY_OUTPUT = f"{_CLIPSEG}decoder.transposed_convolution.4."
_OUTPUT = f"{_CLIPSEG}decoder.output_convolution."
_TEACHER_NAMES = {
    "roi_map.": "im2text.mapping_module.",
    "noise.alpha": f"{_CLIPSEG}weight_alpha",
}


def cotexnet_network(profile: CoTexNetProfile, files: Mapping[str, Path]) -> CoTexNet:
    """Open one checkpoint per task.

    Args:
        profile: Sizes; `full` for what the released code makes.
        files: `CoTexNet-*.pth` by name of the task. The number of classes is read from each.

    Returns:
        A network of all tasks, in evaluation mode, with the released code's reading.

    Raises:
        ValueError: if there is no file, names or shapes differ from the released layout, or the
            frozen parts are not the same in all files.
    """
    if not files:
        raise ValueError("files: expected at least one checkpoint, by the name of its task")
    states = {task: _read(file) for task, file in files.items()}
    classes = {task: _classes(state, files[task]) for task, state in states.items()}
    for task, state in states.items():
        check_tensors(state, checkpoint_shapes(profile, classes[task]), files[task])
        _check_copies(state, files[task])
    first, *others = states
    for task in others:
        frozen = [name for name in states[first] if name.startswith(f"{_CLIPSEG}clip.")]
        _check_equal(
            {name: states[task][name] for name in frozen}, states[first], files[task], files[first]
        )
    network = CoTexNet(profile, classes)
    network.load_state_dict(
        {
            ours: states[task][theirs]
            for task in states
            for ours, theirs in _names(network, task).items()
        }
    )
    return network.eval()


def checkpoint_shapes(profile: CoTexNetProfile, classes: int) -> dict[str, torch.Size]:
    """Every name in `model` of a checkpoint, and its shape."""
    with torch.device("meta"):
        network = CoTexNet(profile, {"task": classes})
    state = network.state_dict()
    shapes = {theirs: state[ours].shape for ours, theirs in _names(network, "task").items()}
    # CLIP's parts that nothing reads.
    width = profile.vision.width
    for name in ("weight", "bias"):
        shapes[f"{_VISION}post_layernorm.{name}"] = torch.Size((width,))
    shapes[f"{_CLIPSEG}clip.visual_projection.weight"] = torch.Size(
        (profile.embedding_width, width)
    )
    shapes[f"{_CLIPSEG}clip.logit_scale"] = torch.Size(())
    for first, second in ((_VISION, _SECOND_VISION), (_MAP, _SECOND_MAP)):
        shapes |= {
            name.replace(first, second): shape
            for name, shape in shapes.items()
            if name.startswith(first)
        }
    return shapes


def _names(network: CoTexNet, task: str) -> dict[str, str]:
    """Our names -> theirs, of the shared parts and one task's."""
    binary = planes_of(network.tasks[task]) == 1
    output = {"decoder.output.": _BINARY_OUTPUT if binary else _OUTPUT}
    prefixes = {
        **_CLIP_NAMES,
        **{f"heads.{task}.{ours}": theirs for ours, theirs in (output | _HEAD_NAMES).items()},
        **{f"teachers.{task}.{ours}": theirs for ours, theirs in _TEACHER_NAMES.items()},
    }
    names = {}
    for name in network.state_dict():
        for ours, theirs in prefixes.items():
            if name.startswith(ours):
                names[name] = theirs + name.removeprefix(ours)
                break  # "decoder." is the last of those that fit
    return names


def _classes(state: Mapping[str, Tensor], file: Path) -> int:
    if f"{_OUTPUT}bias" in state:
        return len(state[f"{_OUTPUT}bias"]) - 1
    if f"{_BINARY_OUTPUT}bias" in state:
        return 1
    raise ValueError(
        f"{file}: neither {_BINARY_OUTPUT}bias nor {_OUTPUT}bias; expected a checkpoint of CoTexNet"
    )


def _check_copies(state: Mapping[str, Tensor], file: Path) -> None:
    """The second vision tower and the second map are the first ones."""
    for first, second in ((_VISION, _SECOND_VISION), (_MAP, _SECOND_MAP)):
        copies = {
            name.replace(second, first, 1): tensor
            for name, tensor in state.items()
            if name.startswith(second)
        }
        _check_equal(copies, state, file, file)


def _check_equal(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path, other: Path
) -> None:
    differing = [name for name, tensor in found.items() if not tensor.equal(expected[name])]
    if differing:
        raise ValueError(
            f"{file}: {len(differing)} tensors such as {differing[0]} differ from those of {other}"
            f"{' under their second name' if file == other else ''}; CLIP is frozen in CoTexNet, "
            "and one copy is served for all tasks"
        )


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of `model`; the settings and schedules beside it are not rebuilt."""
    try:
        content = torch.load(
            file, map_location="cpu", mmap=True, weights_only=False, pickle_module=_TENSORS_ONLY
        )
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file}: not a file of torch.save: {reason}") from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise ValueError(
            f"{file}: expected a dictionary with the network's state_dict under 'model', "
            "as the released main.py writes it"
        )
    return dict(state)


class _Skipped(dict):
    """Takes the place of every class and function that is no tensor's."""

    def __init__(self, *args: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


class _TensorUnpickler(pickle.Unpickler):
    """Rebuilds tensors and plain values; nothing that a file names is imported or called."""

    _REBUILT = frozenset({("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict")})

    def find_class(self, module: str, name: str) -> Any:
        """Look up what tensors are rebuilt with, and `_Skipped` for all else."""
        return super().find_class(module, name) if (module, name) in self._REBUILT else _Skipped


_TENSORS_ONLY = SimpleNamespace(Unpickler=_TensorUnpickler, __name__="pickle")
