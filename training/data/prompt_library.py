"""TPP's prompts for what the demo knows: three sentences per structure and modality.

Sentences by attribute, as the paper has them written (Sec. 4): the profile says what an organ does
or what a lesion is, the shape and the color what it looks like in that modality. They stand in
`prompt_library.json`; needs nothing but the standard library.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class StructurePrompts:
    """The sentences about one structure in one modality."""

    structure: str
    modality: str
    """MRI, CT, ultrasound or endoscopy."""
    profile: str
    shape: str
    color: str

    @property
    def sentences(self) -> tuple[str, str, str]:
        """The prompts in the order that TPP reads them."""
        return self.profile, self.shape, self.color


@cache
def prompt_library() -> dict[tuple[str, str], StructurePrompts]:
    """All prompts, by structure and modality, in the order of the file."""
    entries = json.loads(LIBRARY.read_text(encoding="utf-8"))["prompts"]
    prompts = [StructurePrompts(**entry) for entry in entries]
    return {(entry.structure, entry.modality): entry for entry in prompts}


def prompts_for(structure: str, modality: str) -> tuple[str, str, str]:
    """Profile, shape and color of a structure in a modality.

    Raises:
        LookupError: if the library does not know the structure in that modality.
    """
    library = prompt_library()
    if (structure, modality) not in library:
        known = [name for name, where in library if where == modality]
        where = {entry for _, entry in library}
        wanted = f"one of {', '.join(known)}" if known else f"a modality of {sorted(where)}"
        raise LookupError(
            f"prompts: expected {wanted}, got {structure!r} in {modality!r}; "
            "write three sentences of your own for anything else"
        )
    return library[structure, modality].sentences
