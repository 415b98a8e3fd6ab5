"""The file a conversation is saved in: its questions, what they referred to, and its masks.

JSON of the schema that docs/conversations.md documents; holds no pixels of the image, only what it
takes to find it and to know it again. Asking again is in `conversation`.
"""

import base64
import contextlib
import errno
import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import saymask
from saymask import mask_codec
from saymask._conversation_protocol import check_beta, check_judge
from saymask._inputs import ImageLike, check_image
from saymask.conversation_round import ConversationRound, Instance
from saymask.errors import InvalidArgument
from saymask.readers import read_image
from saymask.source_image import SourceImage
from saymask.windowing import SOFT_TISSUE_HU

__all__ = [
    "CONVERSATION_SCHEMA",
    "ConversationImage",
    "SavedConversation",
    "SavedImage",
    "document",
    "load",
    "save",
]

CONVERSATION_SCHEMA = "saymask.conversation/1"
"""Name and version of the file's fields."""

_PART = re.compile(
    r"^(?:(?P<plane>axial|coronal|sagittal)(?P<slice>\d+))?_?(?:frame(?P<frame>\d+))?$"
)


@dataclass(frozen=True)
class SavedImage:
    """What the file says of the image; never its pixels."""

    size_hw: tuple[int, int]
    """Rows and columns."""
    pixels_sha256: str | None
    """SHA-256 of the pixels as they were sent, hexadecimal; None in files of a client that did not
    have them."""
    path: str | None
    """File it was read from, absolute; None for an array."""
    sha256: str | None
    """SHA-256 of that whole file."""
    part: str
    """Which part of the file, as `axial42`; empty for the whole."""
    intensity: str
    """How values became 8 bits; empty where the file has 8 bits."""


@dataclass(frozen=True, eq=False)
class ConversationImage:
    """The image of a conversation, as far as this side knows it."""

    saved: SavedImage
    """What a file says of it."""
    pixels: NDArray[np.uint8] | None = None
    """(H, W, C) as they are sent; None for a conversation that was resumed without them."""
    source: SourceImage | None = None
    """The file's picture; None for an array."""

    @classmethod
    def of(cls, image: ImageLike) -> Self:
        """Return the image that a caller passed; files of CT are shown in `SOFT_TISSUE_HU`.

        See `saymask.Client.segment`.
        """
        if isinstance(image, str | os.PathLike):
            image = read_image(image, ct_window=SOFT_TISSUE_HU)
        pixels = check_image(image)
        source = image if isinstance(image, SourceImage) else None
        saved = SavedImage(
            (pixels.shape[0], pixels.shape[1]),
            pixels_sha256(pixels),
            *(
                (None, None, "", "")
                if source is None
                else (str(source.path.absolute()), source.sha256, source.part, source.intensity)
            ),
        )
        return cls(saved, pixels, source)

    @classmethod
    def of_stored(cls, size_hw: tuple[int, int], pixels_sha256: str) -> Self:
        """Return an image of which only that is known which the server tells."""
        return cls(SavedImage(size_hw, pixels_sha256, None, None, "", ""))


@dataclass(frozen=True)
class SavedConversation:
    """A conversation in a file."""

    id: str
    """Id under which a server may still have it."""
    image: SavedImage
    """What it is about."""
    beta: float
    """Its beta when it was saved; each round has its own."""
    judge: str
    """Its judge."""
    rounds: tuple[ConversationRound, ...]
    """Its rounds, without `timings_ms`."""

    def read_image(self) -> ConversationImage:
        """Read the image anew from the file it was read from; CT in `SOFT_TISSUE_HU`.

        Raises:
            InvalidArgument: if that is not known, or the image is another one now.
        """
        path = self.image.path
        if path is None:
            raise InvalidArgument(
                "image: the saved conversation names no file of it; pass the image itself"
            )
        part = _PART.match(self.image.part)
        if part is None:
            raise InvalidArgument(
                f"image: {path} {self.image.part!r} is no part this client knows; pass image="
            )
        source = read_image(
            path,
            plane=part["plane"],
            slice_index=None if part["slice"] is None else int(part["slice"]),
            frame_number=None if part["frame"] is None else int(part["frame"]),
            ct_window=SOFT_TISSUE_HU,
        )
        return self.checked(source)

    def checked(self, image: ImageLike) -> ConversationImage:
        """Return the image that a caller passed, if the conversation was about these pixels.

        Raises:
            InvalidArgument: if it was about others.
        """
        read = ConversationImage.of(image)
        expected = self.image.pixels_sha256
        if expected not in (None, read.saved.pixels_sha256):
            shown = f" with values {self.image.intensity}" if self.image.intensity else ""
            raise InvalidArgument(
                "image: it is not the one of the saved conversation, which was about "
                f"{self.image.path or 'an array'} {self.image.part}{shown}; pass that as image="
            )
        return read


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image (H, W, C) uint8 and its shape, hexadecimal."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def document(conversation: SavedConversation) -> dict[str, Any]:
    """Return a conversation ready for JSON."""
    return {
        "schema": CONVERSATION_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "client": f"saymask {saymask.__version__}",
        "id": conversation.id,
        "image": asdict(conversation.image),
        "beta": conversation.beta,
        "judge": conversation.judge,
        "rounds": [_round_document(one) for one in conversation.rounds],
    }


def save(path: str | Path, conversation: SavedConversation) -> None:
    """Write a conversation; a file of that name is replaced whole or not at all.

    Raises:
        OSError: if it cannot be written; it names `path`.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}", str(path))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(document(conversation), ensure_ascii=False, indent=1)
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def load(path: str | Path) -> SavedConversation:
    """Read what `save` wrote.

    Raises:
        InvalidArgument: if there is no such file, or it is not a whole conversation.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(f"{path}: not a saved conversation: {error}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != CONVERSATION_SCHEMA:
        raise InvalidArgument(
            f"{path}: expected a conversation of schema {CONVERSATION_SCHEMA!r}, got {schema!r}"
        )
    try:
        return _conversation(content)
    except KeyError as error:
        raise InvalidArgument(f"{path}: not a whole conversation: no {error}") from error
    except (ValueError, TypeError, AttributeError, zlib.error) as error:
        raise InvalidArgument(f"{path}: not a whole conversation: {error}") from error


def _conversation(content: dict[str, Any]) -> SavedConversation:
    image = content["image"]
    height, width = map(int, image["size_hw"])
    names = ("pixels_sha256", "path", "sha256", "part", "intensity")
    return SavedConversation(
        str(content["id"]),
        SavedImage((height, width), *(image[name] for name in names)),
        check_beta(content["beta"]),
        check_judge(content["judge"]),
        tuple(_round(one, (height, width)) for one in content["rounds"]),
    )


def _round_document(one: ConversationRound) -> dict[str, Any]:
    return {
        "round": one.round,
        "prompt": one.prompt,
        "kind": one.kind,
        "beta": one.beta,
        "references": [list(reference) for reference in one.references],
        "resolution": one.resolution,
        "drawn_mask": None if one.drawn_mask is None else _mask_text(one.drawn_mask),
        "correct_instance": one.correct_instance,
        "revised": list(one.revised),
        "answer": one.answer,
        "instances": [
            {
                "number": instance.number,
                "mask": _mask_text(instance.mask),
                "area_px": int(instance.mask.sum()),
                "score": instance.score,
                "quality": None if math.isnan(instance.quality) else instance.quality,
                "corrected": instance.corrected,
            }
            for instance in one.instances
        ],
        "cached_tokens": one.cached_tokens,
        "computed_tokens": one.computed_tokens,
        "turn_id": one.turn_id,
        "request_id": one.request_id,
    }


def _round(content: dict[str, Any], size_hw: tuple[int, int]) -> ConversationRound:
    drawn, correct = content["drawn_mask"], content["correct_instance"]
    return ConversationRound(
        round=int(content["round"]),
        prompt=str(content["prompt"]),
        instances=tuple(
            Instance(
                int(one["number"]),
                _mask(one["mask"], size_hw),
                float(one["score"]),
                math.nan if one["quality"] is None else float(one["quality"]),
                bool(one["corrected"]),
            )
            for one in content["instances"]
        ),
        references=tuple((int(of), int(number)) for of, number in content["references"]),
        resolution=str(content["resolution"]),
        revised=tuple(_integers(content["revised"])),
        answer=str(content["answer"]),
        cached_tokens=int(content["cached_tokens"]),
        computed_tokens=int(content["computed_tokens"]),
        kind=str(content["kind"]),
        beta=check_beta(content["beta"]),
        drawn_mask=None if drawn is None else _mask(drawn, size_hw),
        correct_instance=None if correct is None else int(correct),
        turn_id=str(content["turn_id"]),
        request_id=str(content["request_id"]),
    )


def _integers(numbers: Sequence[Any]) -> list[int]:
    return [int(number) for number in numbers]


def _mask_text(mask: NDArray[np.bool_]) -> str:
    """Return a mask (H, W) as text: packed as `mask_codec` does, deflated, base64."""
    packed = mask_codec.encode(mask[np.newaxis]).tobytes()
    return base64.b64encode(zlib.compress(packed)).decode("ascii")


def _mask(text: str, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size_hw
    shape = (1, height, mask_codec.packed_width(width))
    unpacker = zlib.decompressobj()
    packed = unpacker.decompress(base64.b64decode(text, validate=True), shape[1] * shape[2])
    if len(packed) != shape[1] * shape[2] or unpacker.unconsumed_tail:
        raise ValueError(f"a mask is not of {height} x {width} pixels")
    mask = mask_codec.decode(np.frombuffer(packed, np.uint8).reshape(shape), width)[0]
    mask.flags.writeable = False
    return mask
