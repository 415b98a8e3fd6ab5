"""Reader of sequences in the layout that TPP's released code expects of Ref-MISS-Bench.

    ROOT/train/JPEGImages/SEQUENCE/FRAME.jpg or .png
    ROOT/train/Annotations/SEQUENCE/FRAME.png or FRAME_mask.png       object = 255 x its number
    ROOT/meta_expressions/train/meta_expressions_multi.json

The JSON names frames and prompts; it is checked whole when read, pictures when they are opened.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.sequences.sequence import Frame, Modality, Scene

META_FILE = "meta_expressions_multi.json"

OBJECT_VALUE = 255
"""A mask's pixels are the object where value / 255 equals its number; in 8 bits only number 1."""


class PublishedSequence(Scene):
    """One object in one sequence; frames are opened when they are asked for.

    Args:
        name: Name of the sequence, which is its folder's.
        modality: Of the dataset it comes from; the layout does not say.
        images: File of each frame.
        masks: Mask of each frame.
        prompts: All expressions of the sequence, which are the prompts of its object.
    """

    def __init__(
        self,
        name: str,
        modality: Modality,
        images: tuple[Path, ...],
        masks: tuple[Path, ...],
        prompts: tuple[str, ...],
    ) -> None:
        self.name, self.modality, self.prompts = name, modality, prompts
        self.images, self.masks = images, masks
        self.names = (name,)
        self.length = len(images)

    def frame(self, index: int) -> Frame:
        """Open one frame as (H, W, 3) RGB, and its mask (1, H, W), which may be empty.

        Raises:
            FileNotFoundError: if one of the two is missing.
            ValueError: if they have more than 8 bits per channel, or differ in size.
        """
        image = _image(self.images[index])
        mask = _mask_values(self.masks[index]) == OBJECT_VALUE
        if image.shape[:2] != mask.shape:
            raise ValueError(
                f"{self.masks[index]}: expected the frame's size {image.shape[:2]}, "
                f"got {mask.shape}"
            )
        return Frame(image, mask[None])


def read_sequences(
    root: Path, split: str = "train", *, modality: Modality, meta_split: str | None = None
) -> list[PublishedSequence]:
    """Read the sequences of one split.

    Args:
        root: Folder of the dataset.
        split: Folder of its pictures.
        modality: Of all its sequences.
        meta_split: Folder of its expressions where it has another name, as "val" beside "valid".

    Returns:
        The sequences in the order of the file, each with its frames in the order of their names.

    Raises:
        FileNotFoundError: if the JSON file, or the file of a frame or a mask, is missing.
        ValueError: if the content is not of that layout.
    """
    path = root / "meta_expressions" / (meta_split or split) / META_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; docs/sequences.md lists those expected"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not videos:
        raise ValueError(f'{path}: expected an object "videos" with at least one sequence')
    return [_sequence(name, entry, root / split, modality, path) for name, entry in videos.items()]


def _sequence(
    name: str, entry: Any, folder: Path, modality: Modality, path: Path
) -> PublishedSequence:
    where = f"{path}: sequence {name!r}"
    frames = entry.get("frames") if isinstance(entry, dict) else None
    if not isinstance(frames, list) or not frames:
        raise ValueError(f'{where}: expected "frames" with the name of at least one frame')
    for part in (name, *frames):
        if not isinstance(part, str) or PurePosixPath(part).name != part:
            raise ValueError(f"{where}: expected names without folders, got {part!r}")
    ordered = sorted(frames)
    images, masks = folder / "JPEGImages" / name, folder / "Annotations" / name
    return PublishedSequence(
        name,
        modality,
        tuple(_existing(images / f"{f}.jpg", images / f"{f}.png") for f in ordered),
        tuple(_existing(masks / f"{f}.png", masks / f"{f}_mask.png") for f in ordered),
        _prompts(entry.get("expressions"), where),
    )


def _prompts(expressions: Any, where: str) -> tuple[str, ...]:
    if not isinstance(expressions, dict) or not expressions:
        raise ValueError(f'{where}: expected "expressions" with at least one entry')
    prompts = []
    for key, expression in expressions.items():
        text = expression.get("exp") if isinstance(expression, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f'{where}: expected "exp" with a text in expression {key!r}')
        number = str(expression.get("obj_id"))
        if number != "1":
            raise ValueError(
                f'{where}: expected "obj_id" 1 in expression {key!r}, got {number}; masks of '
                f"8 bits hold one object, the pixels of value {OBJECT_VALUE}"
            )
        prompts.append(text.strip())
    return tuple(prompts)


def _existing(*candidates: Path) -> Path:
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{candidates[0]}: no such file, nor {candidates[1].name} beside it")


def _image(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        _check_depth(path, image)
        return np.asarray(image.convert("RGB"))


def _mask_values(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        _check_depth(path, image)
        # With a palette the value is the index, not the color that it stands for.
        return np.asarray(image if image.mode == "P" else image.convert("L"))


def _check_depth(path: Path, image: Image.Image) -> None:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path}: expected 8 bits per channel, got mode {image.mode}")
