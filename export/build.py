"""Writes the artifacts of every model of a repository from one source."""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from export.components import onnx_components
from export.manifest import write_manifest
from export.mllm_folder import NO_TOKENIZER, write_mllm_folder
from export.sources import Source
from export.to_onnx import export_onnx
from serving import model_config
from serving.context_cache import MATRIX_FILE, METADATA_FILE
from serving.model_config import MODEL_REPOSITORY
from training.networks.profiles import Profile
from training.weights_folder import TOKENIZER

_PREPROCESSING = "preprocessing.json"


def build(
    source: Source,
    repository: Path = MODEL_REPOSITORY,
    *,
    models: Iterable[str] | None = None,
    language_dtype: torch.dtype = torch.float32,
    say: Callable[[str], None] = print,
) -> None:
    """Export all models, or some.

    Args:
        source: The weights.
        repository: Model repository to fill. One other than the checkout's own gets copies of
            the configurations and of the Python models' code.
        models: Names of the models to write; None writes all.
        language_dtype: Type of the language model.
        say: Receives one line per model.

    Raises:
        ValueError: if a named model is not among those that the export writes.
    """
    writers = _writers(source, language_dtype)
    names = list(writers) if models is None else list(models)
    unknown = sorted(set(names) - set(writers))
    if unknown:
        raise ValueError(f"no model {', '.join(unknown)}; there are {', '.join(sorted(writers))}")
    for number, name in enumerate(names, start=1):
        started = time.monotonic()
        folder = repository / name
        if repository.resolve() != MODEL_REPOSITORY.resolve():
            _copy_model(name, folder)
        version_folder = folder / "1"
        version_folder.mkdir(parents=True, exist_ok=True)
        writers[name](version_folder)
        write_manifest(version_folder, source)
        size_mb = sum(f.stat().st_size for f in version_folder.rglob("*") if f.is_file()) / 1e6
        seconds = time.monotonic() - started
        say(f"[{number}/{len(names)}] {name}: {size_mb:.1f} MB in {seconds:.1f} s")


def example_inputs(profile: Profile) -> dict[str, dict[str, Tensor]]:
    """Example tensors of every ONNX component, for tracing: two items, or one of each kind."""
    sam, clip = profile.sam_size, profile.clip_size
    grid, channels = sam // profile.sam_patch, profile.sam_decoder.hidden_size
    width = profile.mistral.hidden_size
    embedding = {"image_embedding": torch.zeros(1, channels, grid, grid)}
    text = torch.zeros(2, 1, channels)
    boxes = {"boxes_cxcywh": torch.full((2, 4), 0.5)}
    inner = {"input_size": torch.tensor([[sam, sam * 3 // 4]])}
    outer = {"original_size": torch.tensor([[200, 151]])}
    return {
        "medsam_image_encoder": {"pixels": torch.zeros(2, 3, sam, sam)},
        "llava_image_encoder": {"pixels": torch.zeros(2, 3, clip, clip)},
        "medisee_router": {"hidden_states": torch.zeros(2, 2, width)},
        "medisee_box_decoder": {"box_hidden_state": torch.zeros(2, width)},
        "medisee_mask_decoder": embedding | {"text_embedding": text} | boxes | inner | outer,
        "mediround_box_encoder": {"boxes_xyxy": torch.full((2, 4), 0.5)},
        "mediround_text_projection": {"hidden_states": torch.zeros(2, 2, width)},
        "mediround_jcm": {"text_embedding": text},
        "mediround_mask_decoder": embedding | {"text_embedding": text} | inner | outer,
        "organseg_extractors": {"hidden_states": torch.zeros(2, 1, width)},
        "organseg_mask_decoder": embedding | {"seg_embedding": text} | boxes | outer,
    }


def _writers(source: Source, language_dtype: torch.dtype) -> dict[str, Callable[[Path], None]]:
    examples = example_inputs(source.profile)
    writers: dict[str, Callable[[Path], None]] = {}
    for name, component in onnx_components(source.networks).items():
        writers[name] = partial(_write_onnx, name, component, examples[name])

    def write_size(size: int) -> Callable[[Path], None]:
        content = json.dumps({"image_size": size}) + "\n"
        return lambda folder: _write_text(folder / _PREPROCESSING, content)

    def write_tokenizer(folder: Path) -> None:
        tokenizer = source.language_model.tokenizer
        if tokenizer is None:
            raise ValueError(NO_TOKENIZER)
        shutil.copyfile(tokenizer, folder / TOKENIZER)

    writers |= {
        "medsam_image_embedding": write_size(source.profile.sam_size),
        "llava_image_tokens": write_size(source.profile.clip_size),
        "explanation_prompt": write_tokenizer,
        "mllm": lambda folder: write_mllm_folder(source.language_model, folder, language_dtype),
        "mllm_stream": lambda folder: None,
        "checked_request": lambda folder: None,
    }
    if source.networks.medisee is not None:
        writers["medisee_prompt"] = write_tokenizer
    if source.networks.mediround is not None:
        writers["mediround_prompt"] = write_tokenizer
    if source.organseg is not None:
        words = source.organseg

        def write_prompt(folder: Path) -> None:
            write_tokenizer(folder)
            _write_text(folder / "prompt.txt", words.template)

        def write_context(folder: Path) -> None:
            for name in (MATRIX_FILE, METADATA_FILE):
                shutil.copyfile(words.context / name, folder / name)

        writers |= {
            "organseg_image_embedding": write_size(source.profile.sam_size),
            "organseg_image_tokens": write_size(source.profile.clip_size),
            "organseg_prompt": write_prompt,
            "organseg_context_cache": write_context,
        }
    return writers


def _write_onnx(name: str, component: nn.Module, inputs: dict[str, Tensor], folder: Path) -> None:
    export_onnx(component, model_config.read(name), inputs, folder / "model.onnx")


def _write_text(file: Path, content: str) -> None:
    file.write_text(content)


def _copy_model(name: str, folder: Path) -> None:
    """Copy a model's configuration and code, without artifacts."""
    own = MODEL_REPOSITORY / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(own / "config.pbtxt", folder / "config.pbtxt")
    code = own / "1" / "model.py"
    if code.exists():
        shutil.copyfile(code, folder / "1" / "model.py")
