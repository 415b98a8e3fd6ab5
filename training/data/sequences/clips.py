"""Three frames of a scene with one structure and its prompts: what a step of TPP's training sees.

Frames are drawn as TPP's released training draws them (centre, before, after; not in the order of
time), so that propagation is learned from the centre outwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from training.data.sequences.photometric import PhotometricConfig, distort
from training.data.sequences.sampler import SceneSampler
from training.data.sequences.sequence import Modality, Scene

MAX_SKIP = 3
"""Furthest distance of a neighbour from the centre frame."""

PromptsFor = Callable[[str, Modality], tuple[str, ...]]
"""Prompts of a structure in a modality, such as `prompt_library.prompts_for`."""


@dataclass(frozen=True)
class Clip:
    """Frames of one scene and one structure that at least one of them shows."""

    frames: NDArray[np.uint8]
    """(3, H, W, 3) RGB; grey pictures have three equal channels."""
    masks: NDArray[np.bool_]
    """(3, H, W); all False in a frame that does not show the structure."""
    name: str
    modality: Modality
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class ClipConfig:
    """How clips are drawn."""

    min_area_px: int = 12
    """A structure can be asked for if it is this large in one of the frames."""
    flip_share: float = 0.5
    """Share of clips that are mirrored, where left and right do not tell structures apart."""
    photometric: PhotometricConfig | None = field(default_factory=PhotometricConfig)
    """Distortion of brightness and colour; None: pictures stay as they are."""


PLAIN = ClipConfig(flip_share=0.0, photometric=None)
"""No augmentation, for tests and evaluation."""


def clip_indices(length: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Centre frame, one up to `MAX_SKIP` before it, one as far after it; cut at the ends."""
    centre = int(rng.integers(length))
    before, after = rng.integers(1, MAX_SKIP + 1, 2)
    return centre, max(0, centre - int(before)), min(length - 1, centre + int(after))


def draw_clip(
    scene: Scene, prompts_for: PromptsFor, rng: np.random.Generator, config: ClipConfig
) -> Clip | None:
    """Draw frames, and one of the structures in view.

    Returns:
        None where none of the frames shows any structure.
    """
    sequence = scene.render(clip_indices(scene.length, rng))
    areas = sequence.masks.sum(axis=(2, 3)).max(axis=0)
    shown = np.flatnonzero(areas >= config.min_area_px)
    if not len(shown):
        return None
    chosen = int(rng.choice(shown))
    frames = sequence.frames
    if frames.ndim == 3:
        frames = np.repeat(frames[..., None], 3, axis=-1)
    name = sequence.names[chosen]
    clip = Clip(
        frames,
        sequence.masks[:, chosen],
        name,
        sequence.modality,
        prompts_for(name, sequence.modality),
    )
    return _augmented(clip, not scene.has_sides, rng, config)


class ClipSampler:
    """Draws clips of random scenes.

    Args:
        scenes: Where they come from.
        prompts_for: Prompts of a structure.
        config: `PLAIN` leaves the pictures as they are.
    """

    def __init__(
        self, scenes: SceneSampler, prompts_for: PromptsFor, config: ClipConfig | None = None
    ) -> None:
        self.config = ClipConfig() if config is None else config
        self._scenes, self._prompts_for = scenes, prompts_for

    def draw(self, rng: np.random.Generator) -> Clip:
        """Draw a scene and a clip of it that shows something."""
        while True:
            clip = draw_clip(self._scenes.draw(rng), self._prompts_for, rng, self.config)
            if clip is not None:
                return clip


def _augmented(clip: Clip, may_flip: bool, rng: np.random.Generator, config: ClipConfig) -> Clip:
    # Drawn in any case: what follows does not depend on the scene.
    flip = rng.random() < config.flip_share
    if may_flip and flip:
        clip = replace(
            clip,
            frames=np.ascontiguousarray(clip.frames[:, :, ::-1]),
            masks=np.ascontiguousarray(clip.masks[:, :, ::-1]),
        )
    if config.photometric is None:
        return clip
    return replace(clip, frames=distort(clip.frames, rng, config.photometric))
