"""`manifest.json` beside the artifacts of a model: what they are and where they come from."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from export.sources import Source

MANIFEST = "manifest.json"


def write_manifest(folder: Path, source: Source) -> None:
    """Describe every file of a version folder, except code and the manifest itself."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != MANIFEST
    )
    content = {
        "profile": source.profile.name,
        "source": source.description,
        "sha256": {str(path.relative_to(folder)): _sha256(path) for path in files},
        "versions": {name: version(name) for name in ("saymask", "torch", "transformers", "onnx")},
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
