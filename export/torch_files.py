"""Reads torch checkpoints without loading them, and holds them to expected names and shapes."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

_NAMES_SHOWN = 5


def read_torch_files(files: Sequence[Path]) -> dict[str, Tensor]:
    """Map the tensors of one or several state dictionaries into memory.

    Nothing but tensors is unpickled, and a tensor's bytes are read when they are first used.

    Args:
        files: Files written by `torch.save` (the zip format, torch 1.6 and later).

    Raises:
        ValueError: if a file holds something else, or two files hold the same name.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{file}: not a file of torch.save with tensors: {reason}") from error
        others = [] if isinstance(content, dict) else [type(content).__name__]
        others = others or [name for name, value in content.items() if not torch.is_tensor(value)]
        if others:
            raise ValueError(
                f"{file}: expected a state dictionary of tensors, got {_some(others)}; "
                "save only the network's state_dict()"
            )
        twice = sorted(tensors.keys() & content.keys())
        if twice:
            raise ValueError(f"{file}: {_some(twice)} stand in another file of the folder too")
        tensors |= content
    return tensors


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, torch.Size], origin: Path
) -> None:
    """Compare names and shapes, both ways.

    Raises:
        ValueError: Lists what is missing, unknown and of another shape.
    """
    faults = []
    for what, names in (
        ("missing", expected.keys() - found.keys()),
        ("unknown", found.keys() - expected.keys()),
    ):
        if names:
            faults.append(f"{len(names)} {what}: {_some(sorted(names))}")
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    if shapes:
        faults.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    if faults:
        raise ValueError(f"{origin}: not the layout in docs/export.md; {'; '.join(faults)}")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
