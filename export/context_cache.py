"""Command: serve one more version of Organ-Seg's context cache, beside those that are there.

    python -m export.context_cache [--texts FILE.json]

Embeds the texts and puts the cache into the next version folder of `organseg_context_cache`. The
next start of the server answers with it, unless `version_policy` of the model's `config.pbtxt`
names other versions; to go back, remove the folder or name the old version (docs/organseg.md).
"""

import argparse
import shutil
from pathlib import Path

from serving.context_cache import MATRIX_FILE, METADATA_FILE, ContextCache
from serving.model_config import MODEL_REPOSITORY, ROOT, read_folder
from training import context_cache

MODEL = "organseg_context_cache"

BUILT = ROOT / "build" / MODEL
"""Where caches lie that were built for serving."""


def serve_context(cache: Path, repository: Path = MODEL_REPOSITORY) -> Path:
    """Copy a cache into the next version folder of its model.

    Args:
        cache: Folder of one version, from `training.context_cache`.
        repository: Model repository that has the model.

    Returns:
        The version folder.

    Raises:
        ValueError: if the files of the cache do not fit together.
    """
    ContextCache(cache)  # reads and checks both files
    newest = read_folder(repository / MODEL).version_folder
    folder = newest.with_name(str(int(newest.name) + 1))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for source in (cache / MATRIX_FILE, cache / METADATA_FILE, newest / "model.py"):
        shutil.copyfile(source, partial / source.name)
    return partial.rename(folder)


def who_answers(folder: Path) -> str:
    """Say what a server answers with, now that a version's folder is there."""
    config = read_folder(folder.parent)
    named = sorted(config.proto.version_policy.specific.versions)
    if not named or int(folder.name) in named:
        return "it answers from the next start of the server"
    return (
        f"version_policy of {folder.parent / 'config.pbtxt'} names {', '.join(map(str, named))}, "
        f"so it does not answer until that names {folder.name}"
    )


def main(argv: list[str] | None = None) -> int:
    """Build a cache, put it in its place and say where that is."""
    parser = argparse.ArgumentParser(description="Serve one more context cache of Organ-Seg.")
    parser.add_argument(
        "--texts", type=Path, default=context_cache.TEXTS, help="default: %(default)s"
    )
    parser.add_argument("--repository", type=Path, default=MODEL_REPOSITORY)
    arguments = parser.parse_args(argv)
    try:
        built = context_cache.build_cache(arguments.texts, BUILT)
        folder = serve_context(built, arguments.repository)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"cache {built.name} is version {folder.name}, {folder}; {who_answers(folder)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
