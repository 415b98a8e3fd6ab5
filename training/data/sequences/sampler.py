"""Random scenes of all sources, in a training and a held-out split."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np

from training.data.sequences.abdomen_stack import AbdomenStack
from training.data.sequences.brain_stack import BrainStack
from training.data.sequences.cardiac_mri import CardiacCine
from training.data.sequences.echocardiography import Echocardiogram
from training.data.sequences.endoscopy import Colonoscopy
from training.data.sequences.sequence import Scene
from training.data.templates import TEST_TEMPLATE, TRAIN_TEMPLATE, load_template

Source = Literal["brain_stack", "abdomen_stack", "echocardiogram", "colonoscopy", "cardiac_cine"]
SOURCES: tuple[Source, ...] = get_args(Source)
STACKS = ("brain_stack", "abdomen_stack")
"""Sources that are cut through one structure; the others show theirs in most frames."""

HELD_OUT_SEEDS = 2**31
"""Scenes of the test split have seeds from here on, those of training lower ones."""


class SceneSampler:
    """Draws scenes.

    Args:
        held_out: Draw from the test split: other seeds, and for the brain the other template.
        size_px: Side of the square pictures.
        length: Frames.
        sources: What to draw from.

    Raises:
        ValueError: if a source has no such name.
    """

    def __init__(
        self,
        *,
        held_out: bool,
        size_px: int = 128,
        length: int = 16,
        sources: Sequence[Source] = SOURCES,
    ) -> None:
        unknown = sorted(set(sources) - set(SOURCES))
        if unknown or not sources:
            raise ValueError(f"sources: expected some of {SOURCES}, got {unknown or 'none'}")
        makers: dict[Source, Callable[..., Scene]] = {
            "abdomen_stack": AbdomenStack,
            "echocardiogram": Echocardiogram,
            "colonoscopy": Colonoscopy,
            "cardiac_cine": CardiacCine,
        }
        if "brain_stack" in sources:
            template = load_template(TEST_TEMPLATE if held_out else TRAIN_TEMPLATE)
            makers["brain_stack"] = partial(BrainStack, template)
        self._makers = {source: makers[source] for source in sources}
        self._first_seed = HELD_OUT_SEEDS if held_out else 0
        self._size_px, self._length = size_px, length

    def draw(
        self, rng: np.random.Generator, source: Source | None = None, through: str | None = None
    ) -> Scene:
        """Draw a scene.

        Args:
            rng: Source of everything random.
            source: Which; None: each equally often.
            through: Structure in the middle of a stack; None draws it, films have none.

        Raises:
            ValueError: if the source is not cut through such a structure.
            LookupError: if the sampler was not made for that source.
        """
        if source is None:
            source = list(self._makers)[rng.integers(len(self._makers))]
        if source not in self._makers:
            raise LookupError(f"source: expected one of {list(self._makers)}, got {source!r}")
        seed = self._first_seed + int(rng.integers(HELD_OUT_SEEDS))
        sizes = {"size_px": self._size_px, "length": self._length}
        if through is None:
            return self._makers[source](seed, **sizes)
        if source not in STACKS:
            raise ValueError(f"through: expected a source of {STACKS}, got {source!r}")
        return self._makers[source](seed, **sizes, through=through)
