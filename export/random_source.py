"""Random weights of any profile: what speed can be measured with where no checkpoint is at hand."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor, nn

from export.sources import (
    DEMO_ENGINE,
    Adapter,
    LanguageModel,
    OrganSegTexts,
    Source,
    adapter_config,
    base_config,
    base_shapes,
    build_networks,
    check_tokenizer,
    context_folder,
)
from serving.model_config import ROOT
from serving.organseg_prompt import DEMO_TEMPLATE, MULTIPLE_CHOICE_TEMPLATE
from training.networks import mediround, medisee, organseg
from training.networks.profiles import ProfileName, demo_profile, profile
from training.run import WEIGHTS
from training.weights_folder import TOKENIZER

SPREAD = 0.02
"""Standard deviation of random weights, as these networks are initialised."""


def random_source(
    profile_name: ProfileName, seed: int = 0, tokenizer: Path | None = None
) -> Source:
    """Make up weights.

    The language model's are rounded to bfloat16 and made a tensor at a time, as they are written.

    Args:
        profile_name: Sizes of the networks.
        seed: Same seed, same weights.
        tokenizer: Sentencepiece model of the profile's vocabulary size. None takes the demo's,
            filled up with pieces that no text is split into.

    Raises:
        FileNotFoundError: if there is no such tokenizer.
        ValueError: if its vocabulary has another size.
    """
    sizes = profile(profile_name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = build_networks(sizes)
        _randomize(networks.modules())
    vocabulary, width = sizes.mistral.vocab_size, sizes.mistral.hidden_size
    small = width == demo_profile().mistral.hidden_size
    shapes = base_shapes(sizes)
    words = f"random weights, seed {seed}"
    if tokenizer is None:
        tokenizer = WEIGHTS / TOKENIZER
        words += "; the demo's tokenizer"
        if vocabulary > demo_profile().mistral.vocab_size:
            tokenizer = ROOT / "build" / f"tokenizer-{vocabulary}.model"
            write_filled_tokenizer(WEIGHTS / TOKENIZER, vocabulary, tokenizer)
            words += f", filled up to {vocabulary} pieces: prompts get other lengths than Mistral's"

    def base() -> Iterator[tuple[str, Tensor]]:
        for name, shape in shapes.items():
            yield name, _random(name, shape, seed)

    adapter = {
        f"base_model.model.{name.removesuffix('weight')}{half}.weight": size
        for name, shape in shapes.items()
        if name.endswith((".q_proj.weight", ".v_proj.weight"))
        for half, size in (
            ("lora_A", (sizes.lora_rank, shape[1])),
            ("lora_B", (shape[0], sizes.lora_rank)),
        )
    }
    return Source(
        description=words,
        profile=sizes,
        networks=networks,
        language_model=LanguageModel(
            config=base_config(sizes),
            tensors=base,
            adapters={
                system: Adapter(
                    adapter_config(sizes),
                    {
                        name: _random(f"{system}.{name}", size, seed)
                        for name, size in adapter.items()
                    },
                )
                for system in (medisee.ADAPTER, mediround.ADAPTER, organseg.ADAPTER)
            },
            embeddings={
                system.ADAPTER: _random(
                    system.ADAPTER, (vocabulary + system.ADDED_TOKENS, width), seed
                )
                for system in (medisee, mediround)
            },
            tokenizer=check_tokenizer(tokenizer, sizes),
            engine=DEMO_ENGINE if small else {},
        ),
        organseg=OrganSegTexts(
            context_folder(WEIGHTS), DEMO_TEMPLATE if small else MULTIPLE_CHOICE_TEMPLATE
        ),
    )


def write_filled_tokenizer(file: Path, vocabulary_size: int, output: Path) -> None:
    """Copy a sentencepiece model with as many pieces as asked for.

    Added pieces are marked unused: no text is split into them, and their ids have a text.

    Raises:
        ValueError: if the model has more pieces than that.
    """
    pieces = SentencePieceProcessor(model_file=str(file)).get_piece_size()
    if pieces > vocabulary_size:
        raise ValueError(f"{file}: {pieces} pieces, expected {vocabulary_size} at most")
    # Messages of protocol buffers grow by appending: each field 1 of the model is one more piece.
    added = b"".join(
        _field(1, _field(1, f"{_SPACE}w{number}".encode()) + _UNUSED)
        for number in range(pieces, vocabulary_size)
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(file.read_bytes() + added)


_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""Sentencepiece's mark of a space."""

_UNUSED = struct.pack("<BfBB", 2 << 3 | 5, -1e6, 3 << 3, 5)
"""Score (field 2) and type (field 3: UNUSED) of a piece."""


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def _randomize(network: nn.Module) -> None:
    """Draw every parameter but the weights of norms and the frozen frequencies of positions.

    As they are built, some start from zero.
    """
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and not (parameter == 1).all():
                parameter.normal_(std=SPREAD)


def _random(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The language model's tensor of that name, bfloat16."""
    if name.endswith("norm.weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=SPREAD, generator=generator)
