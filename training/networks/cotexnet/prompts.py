"""CoTexNet's prompts in training: attributes as a sentence, and sentences as token ids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from training.networks.cotexnet.profile import CoTexNetProfile
from training.networks.cotexnet.reading import Reading
from training.networks.cotexnet.text_encoder import Prompts

TEMPLATE = "segmentation area of"
"""In front of the regions of interest (paper, section 3.1)."""
OVERWRITTEN = 5
"""Position from which the code puts regions of interest in the place of words."""


@dataclass(frozen=True)
class Attributes:
    """What is said of one class's region, each in a word or two."""

    number: str
    shape: str
    size: str
    color: str
    location: str


def real_text(attributes: Attributes, keyword: str) -> str:
    """Real-text prompt of one class (paper, section 3.1).

    Args:
        attributes: Of the class in one image.
        keyword: What the class is called, such as "polyp".
    """
    return (
        f"{attributes.number} {attributes.shape} {attributes.size} {attributes.color} {keyword} "
        f"area, located in the {attributes.location} of the image."
    )


class PromptTokenizer:
    """Turns real texts into prompts.

    Args:
        pieces: Token ids of a text, without start and end; all below V - 2.
        profile: Of the vocabulary and the length.
        reading: Where the regions of interest go.
    """

    def __init__(
        self, pieces: Callable[[str], Sequence[int]], profile: CoTexNetProfile, reading: Reading
    ) -> None:
        self.pieces, self.length = pieces, profile.text_length
        self.start, self.end = profile.vocabulary_size - 2, profile.vocabulary_size - 1
        self.template = list(pieces(TEMPLATE)) if reading.pseudo_text == "template" else None

    def __call__(self, texts: Sequence[str], classes: int) -> Prompts:
        """Token ids of B texts, cut at L, with room for one region of interest per class.

        Raises:
            ValueError: if a piece is outside the vocabulary, L has no room for the regions, or a
                text is so short that regions would stand behind its end, where nothing reads them.
        """
        before, roi_start = [self.start], OVERWRITTEN
        if self.template is not None:
            roi_start = 1 + len(self.template)
            # Any id will do where a region of interest follows, but the one that ends the prompt.
            before += self.template + [self.start] * classes
        if roi_start + classes >= self.length:
            raise ValueError(
                f"classes: {self.length} tokens have no room for {classes} regions of interest"
            )
        rows = []
        for text in texts:
            pieces = list(self.pieces(text))
            if pieces and not 0 <= min(pieces) <= max(pieces) < self.start:
                raise ValueError(
                    f"{text!r}: expected pieces from 0 to {self.start - 1}, got {min(pieces)} to "
                    f"{max(pieces)}; the tokenizer is not the profile's"
                )
            row = (before + pieces)[: self.length - 1]
            if len(row) < roi_start + classes:
                raise ValueError(
                    f"{text!r}: {len(pieces)} pieces, expected at least {roi_start + classes - 1} "
                    "for the regions of interest that take their places; use real_text()"
                )
            rows.append(row + [self.end] * (self.length - len(row)))
        return Prompts(torch.tensor(rows), roi_start)
