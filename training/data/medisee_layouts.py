"""Readers of the published layouts: SA-Med2D-20M and MLMR-SD, as MediSee's training expects them.

`docs/data.md` draws the layouts. Index files are checked whole when read; images and masks when
they are opened, since the index of SA-Med2D-20M names millions of them. Templates are
`training.data.medisee_templates`, ratios `training.data.mixing`.
"""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.medisee_templates import class_turn, reasoning_turn

IMAGE_ROOT = "SAMed2Dv1"
"""Folder inside the dataset folder that all paths of the index files are relative to."""
POOL_NAME = "prompt_all_explanation_{}.json"
POOL_COUNT = 10
FOREGROUND = 255
"""Value of the object's pixels in a mask; any other value is background."""
MAX_MASKS_PER_IMAGE = 3
"""MediSee asks for at most this many objects per image and step."""

_POOL_FIELDS = ("long", "short", "long_explanation", "short_explanation")
_EVAL_FIELDS = ("image", "mask", "class_text", "long", "short", "bbox")


@dataclass(frozen=True)
class LabelledImage:
    """One image of a training index with its labelled masks."""

    image: Path
    masks: tuple[tuple[Path, str], ...]
    """(mask, class name) pairs, at least one."""


@dataclass(frozen=True)
class PoolEntry:
    """Reasoning questions about one class and their explanations."""

    long: str
    short: str
    long_explanation: str
    short_explanation: str


@dataclass(frozen=True)
class EvaluationCase:
    """One line of an evaluation file."""

    image: Path
    mask: Path
    class_text: str
    long: str
    """Long reasoning question; the released evaluation uses this one only."""
    short: str
    box_xyxy: tuple[float, float, float, float]
    """(x_min / W, y_min / H, x_max / W, y_max / H), largest pixel index inclusive."""


@dataclass(frozen=True)
class Turn:
    """One question about one mask of an image."""

    question: str
    answer: str
    class_text: str
    mask: Path


@dataclass(frozen=True)
class TrainingSample:
    """One image and up to `MAX_MASKS_PER_IMAGE` separate turns about it."""

    image: Path
    turns: tuple[Turn, ...]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; docs/data.md lists those expected"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(content, dict) or not content:
        got = "an empty one" if content == {} else f"a {type(content).__name__}"
        raise ValueError(f"{path}: expected a JSON object with at least one entry, got {got}")
    return content


def _resolve(dataset_dir: Path, relative: str, where: str) -> Path:
    path = PurePosixPath(relative)
    if not relative or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{where}: expected a path relative to {IMAGE_ROOT}/ without '..', got {relative!r}"
        )
    return dataset_dir / IMAGE_ROOT / path


def read_training_index(path: Path, dataset_dir: Path) -> list[LabelledImage]:
    """Read a training JSON `{image_path: {mask_path: class}}`, of either source.

    Args:
        path: the JSON file.
        dataset_dir: folder that holds `SAMed2Dv1/`.

    Returns:
        One entry per image, in the order of the file.

    Raises:
        FileNotFoundError: if the JSON file is missing; images and masks are not looked for.
        ValueError: if the content is not of that layout.
    """
    images = []
    for image, masks in _read_json(path).items():
        where = f"{path}: {image!r}"
        if (
            not isinstance(masks, dict)
            or not masks
            or not all(isinstance(name, str) and name for name in masks.values())
        ):
            raise ValueError(
                f"{where}: expected {{mask_path: class}} with at least one mask, got {masks!r}"
            )
        images.append(
            LabelledImage(
                _resolve(dataset_dir, image, where),
                tuple((_resolve(dataset_dir, m, where), name) for m, name in masks.items()),
            )
        )
    return images


def read_pools(folder: Path) -> tuple[dict[str, PoolEntry], ...]:
    """Read the ten pools `prompt_all_explanation_{1..10}.json` of reasoning questions.

    Args:
        folder: where the files lie.

    Returns:
        One mapping from class name to its questions per file.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if an entry lacks a field, or a pool lacks a class that another pool has.
    """
    pools = []
    for number in range(1, POOL_COUNT + 1):
        path = folder / POOL_NAME.format(number)
        pool = {}
        for class_text, entry in _read_json(path).items():
            bad = [
                f
                for f in _POOL_FIELDS
                if not (isinstance(entry, dict) and isinstance(entry.get(f), str) and entry[f])
            ]
            if bad:
                raise ValueError(
                    f"{path}: class {class_text!r}: expected text in {', '.join(_POOL_FIELDS)}, "
                    f"missing or empty: {', '.join(bad)}"
                )
            pool[class_text] = PoolEntry(**{f: entry[f] for f in _POOL_FIELDS})
        pools.append(pool)
    everything = set().union(*pools)
    for number, pool in enumerate(pools, start=1):
        if missing := sorted(everything - set(pool)):
            raise ValueError(
                f"{folder / POOL_NAME.format(number)}: misses classes that other pools have: "
                f"{', '.join(missing)}"
            )
    return tuple(pools)


def check_classes(images: Sequence[LabelledImage], pools: Sequence[Mapping[str, Any]]) -> None:
    """Check before training that every class of an index has reasoning questions.

    Raises:
        ValueError: if classes are missing; the text names them.
    """
    classes = {name for image in images for _, name in image.masks}
    if missing := sorted(c for c in classes if any(c not in pool for pool in pools)):
        raise ValueError(
            f"pools: no question for the classes {', '.join(missing)}; "
            "add them to each pool or drop their masks from the index"
        )


def _parse_box(value: Any, where: str) -> tuple[float, float, float, float]:
    numbers = isinstance(value, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value
    )
    if not numbers or len(value) != 4:
        raise ValueError(f"{where}: bbox: expected four finite numbers, got {value!r}")
    x0, y0, x1, y1 = (float(v) for v in value)
    if not (0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1):
        raise ValueError(
            f"{where}: bbox: expected x_min/W, y_min/H, x_max/W, y_max/H in this order, each in "
            f"[0, 1], got {value!r}"
        )
    return x0, y0, x1, y1


def read_evaluation(path: Path, dataset_dir: Path) -> list[EvaluationCase]:
    """Read an evaluation JSONL file, one object with the fields of `EvaluationCase` per line.

    Args:
        path: the file; blank lines are skipped. The box is its field `bbox`.
        dataset_dir: folder that holds `SAMed2Dv1/`.

    Returns:
        The cases in the order of the file.

    Raises:
        FileNotFoundError: if the file is missing; images and masks are not looked for.
        ValueError: if a line is not of that layout; the text has its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; docs/data.md lists those expected"
        ) from None
    cases = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: expected one JSON object per line, got {error}") from None
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected a JSON object, got {type(entry).__name__}")
        if missing := [f for f in _EVAL_FIELDS if f not in entry]:
            raise ValueError(f"{where}: expected fields {_EVAL_FIELDS}, missing {missing}")
        for field in _EVAL_FIELDS[:-1]:
            if not isinstance(entry[field], str):
                raise ValueError(f"{where}: {field}: expected text, got {entry[field]!r}")
        cases.append(
            EvaluationCase(
                image=_resolve(dataset_dir, entry["image"], where),
                mask=_resolve(dataset_dir, entry["mask"], where),
                class_text=entry["class_text"],
                long=entry["long"],
                short=entry["short"],
                box_xyxy=_parse_box(entry["bbox"], where),
            )
        )
    if not cases:
        raise ValueError(f"{path}: expected at least one case, got none")
    return cases


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; paths of the index are relative to {IMAGE_ROOT}/ in the "
            "dataset folder"
        ) from None


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it has more than 8 bits per channel.
    """
    with _open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(
                f"{path}: expected 8 bits per channel, got mode {image.mode}; "
                "window it to 0..255 first"
            )
        return np.asarray(image.convert("RGB"))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask PNG as (H, W) bool; the object's pixels have the value 255.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if no pixel has the value 255, or pixels have more than 8 bits.
    """
    with _open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{path}: expected 8 bits per pixel, got mode {image.mode}")
        values = np.asarray(image.convert("L"))
    mask = values == FOREGROUND
    if not mask.any():
        raise ValueError(
            f"{path}: expected foreground pixels of value {FOREGROUND}, "
            f"got only {np.unique(values)[:8].tolist()}"
        )
    return mask


def box_of_mask(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Box of a mask as MLMR-SD writes it: normalised x0, y0, x1, y1, largest index inclusive.

    Args:
        mask: (H, W) bool with at least one true pixel.

    Raises:
        ValueError: if the mask is empty.
    """
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        raise ValueError("mask: expected at least one foreground pixel, got none")
    height, width = mask.shape
    return (
        float(columns.min() / width),
        float(rows.min() / height),
        float(columns.max() / width),
        float(rows.max() / height),
    )


def read_pair(image: Path, mask: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read an image and one of its masks.

    Returns:
        (H, W, 3) uint8 and (H, W) bool.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: if one is broken or their sizes differ.
    """
    pixels, foreground = read_image(image), read_mask(mask)
    if pixels.shape[:2] != foreground.shape:
        raise ValueError(
            f"{mask}: expected the image's size {pixels.shape[:2]}, got {foreground.shape}"
        )
    return pixels, foreground


def _draw_masks(image: LabelledImage, rng: random.Random, max_masks: int) -> list[tuple[Path, str]]:
    if max_masks < 1:
        raise ValueError(f"max_masks: expected at least 1, got {max_masks}")
    return rng.sample(image.masks, min(max_masks, len(image.masks)))


def draw_class_sample(
    images: Sequence[LabelledImage], rng: random.Random, max_masks: int = MAX_MASKS_PER_IMAGE
) -> TrainingSample:
    """Draw an image and ask for up to max_masks of its objects by class name."""
    image = rng.choice(images)
    turns = []
    for mask, class_text in _draw_masks(image, rng, max_masks):
        question, answer = class_turn(class_text, rng)
        turns.append(Turn(question, answer, class_text, mask))
    return TrainingSample(image.image, tuple(turns))


def draw_reasoning_sample(
    images: Sequence[LabelledImage],
    pools: Sequence[Mapping[str, PoolEntry]],
    rng: random.Random,
    max_masks: int = MAX_MASKS_PER_IMAGE,
) -> TrainingSample:
    """Draw an image and ask for its objects with questions of a random pool, long or short.

    Raises:
        KeyError: if the pool has no question for a class; `check_classes` finds this earlier.
    """
    image = rng.choice(images)
    turns = []
    for mask, class_text in _draw_masks(image, rng, max_masks):
        number = rng.randrange(len(pools))
        if class_text not in pools[number]:
            raise KeyError(
                f"pool {number + 1}: no question for the class {class_text!r} of {mask}; "
                "run check_classes() on the index and the pools"
            )
        entry = pools[number][class_text]
        query, explanation = rng.choice(
            ((entry.long, entry.long_explanation), (entry.short, entry.short_explanation))
        )
        question, answer = reasoning_turn(query, explanation, rng)
        turns.append(Turn(question, answer, class_text, mask))
    return TrainingSample(image.image, tuple(turns))
