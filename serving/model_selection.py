"""Says which models a server will hold, and whether the files they serve are there.

Reads configurations and folders only, so that what is missing is told before a server starts.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from serving import model_config
from serving.errors import LaunchError
from serving.model_config import ModelConfig

BUILD_COMMAND = "python -m export --profile demo"
"""Writes the artifacts of all component models."""

_DEFAULT_FILES = {"python": "model.py", "onnxruntime": "model.onnx"}


def select(
    repositories: Sequence[Path], names: Iterable[str] | None = None
) -> dict[str, ModelConfig]:
    """Models to serve: those named and everything they need, or all.

    Args:
        repositories: Folders of model folders.
        names: Models asked for; None takes all of the repositories.

    Raises:
        LaunchError: An unknown model, or a repository that cannot be read.
    """
    try:
        known = model_config.read_all(repositories)
    except (OSError, ValueError) as error:
        raise LaunchError(str(error)) from error
    places = ", ".join(str(repository) for repository in repositories)
    if not known:
        raise LaunchError(f"no models in {places}")
    chosen: dict[str, ModelConfig] = {}
    waiting = [(name, "") for name in (known if names is None else names)]
    while waiting:
        name, wanted_by = waiting.pop()
        if name not in known:
            reason = f", which {wanted_by!r} needs," if wanted_by else ""
            raise LaunchError(
                f"model {name!r}{reason} is not in {places}; there are {', '.join(sorted(known))}"
            )
        if name not in chosen:
            chosen[name] = known[name]
            waiting += [(needed, name) for needed in known[name].dependencies]
    return dict(sorted(chosen.items()))


def missing_files(config: ModelConfig) -> list[Path]:
    """Files that the model's version folder should hold and does not.

    These are the file its backend opens, those its parameter `artifacts` lists, and those the
    folder's `manifest.json` lists.
    """
    folder = config.version_folder
    if config.is_ensemble:
        return [] if folder.is_dir() else [folder / ".gitkeep"]
    names = list(config.listed_parameter("artifacts"))
    if config.backend in _DEFAULT_FILES:
        names.append(config.proto.default_model_filename or _DEFAULT_FILES[config.backend])
    names += manifest(config).get("sha256", {})
    return [folder / name for name in dict.fromkeys(names) if not (folder / name).exists()]


def manifest(config: ModelConfig) -> dict[str, Any]:
    """What the exporter wrote of a model's files: profile, source, hashes; {} where it wrote none.

    Raises:
        LaunchError: The file is broken.
    """
    file = config.version_folder / "manifest.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {**content, "sha256": dict(content["sha256"])}
    except (ValueError, LookupError, TypeError) as error:
        raise LaunchError(
            f"{file} is not a manifest ({error}); write it anew: {BUILD_COMMAND}"
        ) from error


def check_files(configs: Iterable[ModelConfig]) -> None:
    """Check that every model's files are there.

    Raises:
        LaunchError: Names each model, its missing file and the command that builds it.
    """
    lines = [
        f"model {config.name!r} lacks {path}"
        for config in configs
        for path in missing_files(config)
    ]
    if lines:
        raise LaunchError("\n".join([*lines, f"build what is missing: {BUILD_COMMAND}"]))
