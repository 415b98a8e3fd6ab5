"""Reader of MR-MedSeg's dialogues, as MediRound's training and evaluation expect them.

A file holds a list of conversations; human and model take turns, and paths stand in brackets in
their texts. `docs/data.md` draws the layout. Files are checked whole when read, images and masks
when they are opened, with the readers of `training.data.medisee_layouts`.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_BRACKET = re.compile(r"\[(IMAGE256|MASK-ENCODE|BOX-ENCODE|MASK-DECODE|REF-DECODE):([^\]]*)\]")


@dataclass(frozen=True)
class PublishedTurn:
    """One question of a dialogue and the mask that answers it."""

    prompt: str
    """The question, without its brackets."""
    reference: int | None
    """Number of the round it refers to, from 1; None for a question that refers to nothing."""
    reference_mask: Path | None
    """True mask that training shows as the reference."""
    lead_in: str
    """What the answer says before its mask, such as "It is"; empty where it says nothing."""
    mask: Path
    """True mask."""


@dataclass(frozen=True)
class PublishedDialogue:
    """One image and the conversation about it."""

    image: Path
    turns: tuple[PublishedTurn, ...]


def read_dialogues(path: Path, dataset_dir: Path) -> list[PublishedDialogue]:
    """Read a file of dialogues.

    Args:
        path: JSON with a list of dialogues, or with one, as the published sample.
        dataset_dir: Folder that all paths in it are relative to.

    Returns:
        The dialogues in the order of the file.

    Raises:
        FileNotFoundError: if the JSON file is missing; images and masks are not looked for.
        ValueError: if the content is not of that layout.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; docs/data.md lists those expected"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise ValueError(f"{path}: expected at least one dialogue, got an empty list")
    return [
        _dialogue(entry, dataset_dir, f"{path}: dialogue {number}")
        for number, entry in enumerate(entries)
    ]


def _dialogue(entry: Any, dataset_dir: Path, where: str) -> PublishedDialogue:
    if not isinstance(entry, dict) or entry.get("task") != "segmentation":
        raise ValueError(f'{where}: expected an object with "task": "segmentation"')
    lines = entry.get("conversations")
    if not isinstance(lines, list) or not lines or len(lines) % 2:
        raise ValueError(f'{where}: expected "conversations" with questions and answers in pairs')
    image: Path | None = None
    turns: list[PublishedTurn] = []
    for human, gpt in zip(lines[::2], lines[1::2], strict=True):
        place = f"{where}, round {len(turns) + 1}"
        asked, answered = _value(human, "human", place), _value(gpt, "gpt", place)
        paths = _paths(asked, dataset_dir, place)
        if not turns:
            image = _only(paths, "IMAGE256", place)
        elif "IMAGE256" in paths:
            raise ValueError(f"{place}: expected the image in the first round only")
        reference, reference_mask = _reference(human, paths, len(turns), place)
        mask = _only(_paths(answered, dataset_dir, place), "MASK-DECODE", place)
        turns.append(
            PublishedTurn(
                _question(asked, place),
                reference,
                reference_mask,
                lead_in=_BRACKET.split(answered)[0].strip(),
                mask=mask,
            )
        )
    assert image is not None
    return PublishedDialogue(image, tuple(turns))


def _value(line: Any, speaker: str, where: str) -> str:
    if not isinstance(line, dict) or line.get("from") != speaker:
        raise ValueError(f'{where}: expected a line with "from": "{speaker}", got {line!r}')
    value = line.get("value")
    if not isinstance(value, str):
        raise ValueError(f'{where}: expected "value" with a text, got {value!r}')
    return value


def _paths(text: str, dataset_dir: Path, where: str) -> dict[str, list[Path]]:
    """Paths of a text's brackets, by their kind."""
    found: dict[str, list[Path]] = {}
    for kind, relative in _BRACKET.findall(text):
        path = PurePosixPath(relative)
        if not relative or path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"{where}: expected a path relative to the dataset's folder without '..', "
                f"got {relative!r}"
            )
        found.setdefault(kind, []).append(dataset_dir / path)
    return found


def _only(paths: dict[str, list[Path]], kind: str, where: str) -> Path:
    found = paths.get(kind, [])
    if len(found) != 1:
        raise ValueError(f"{where}: expected one [{kind}:...], got {len(found)}")
    return found[0]


def _reference(
    human: dict[str, Any], paths: dict[str, list[Path]], before: int, where: str
) -> tuple[int | None, Path | None]:
    """Round referred to, from 1, and its mask; `before` rounds precede this one."""
    if "ind" not in human:
        if {"MASK-ENCODE", "BOX-ENCODE"} & paths.keys():
            raise ValueError(f'{where}: shows a reference, expected its round as "ind"')
        return None, None
    number = human["ind"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < before:
        raise ValueError(f'{where}: expected "ind" of an earlier round, from 0, got {number!r}')
    mask = _only(paths, "MASK-ENCODE", where)
    if _only(paths, "BOX-ENCODE", where) != mask:
        raise ValueError(f"{where}: expected one mask for the crop and the box of a reference")
    return number + 1, mask


def _question(text: str, where: str) -> str:
    """The question behind the brackets, which stand in front of it as in a prompt."""
    *_, question = _BRACKET.split(text)
    between = "".join(_BRACKET.split(text)[:-1:3])
    if between.strip() or not question.strip():
        raise ValueError(f"{where}: expected brackets first, then a question, got {text!r}")
    return question.strip()
