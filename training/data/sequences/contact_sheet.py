"""Contact sheets: a few frames of a few scenes, without and with the outlines of structures.

.venv/bin/python -m training.data.sequences.contact_sheet echocardiogram -o echo.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.data.sequences.sampler import SOURCES, SceneSampler
from training.data.sequences.sequence import ImageSequence, Scene

OUTLINES = ((255, 80, 80), (90, 230, 90), (90, 150, 255), (255, 210, 60), (230, 110, 230))
"""RGB of the first structure, the second, and so on; then from the beginning."""

PALETTE = 40
"""Colors of the file besides the outlines', which keeps sheets of speckle small."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sheet of one source."""
    parser = argparse.ArgumentParser(prog="contact_sheet", description=__doc__)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--frames", type=int, default=4, help="per scene, evenly spread")
    parser.add_argument("--size-px", type=int, default=128)
    arguments = parser.parse_args(argv)
    sampler = SceneSampler(held_out=False, size_px=arguments.size_px, sources=(arguments.source,))
    rng = np.random.default_rng(arguments.seed)
    scenes = [sampler.draw(rng) for _ in range(arguments.scenes)]
    # Not the ends, where a stack may have left the body.
    spread = np.linspace(0, scenes[0].length - 1, arguments.frames + 2)[1:-1]
    sheet = contact_sheet(scenes, spread.round().astype(int).tolist())
    plain = sheet.reshape(-1, 2, arguments.size_px, *sheet.shape[1:])[:, 0]
    # Thin outlines would get no color of their own.
    palette = Image.fromarray(plain.reshape(-1, *sheet.shape[1:])).quantize(PALETTE)
    palette.putpalette([*(palette.getpalette() or []), *np.ravel(OUTLINES).tolist()])
    # Without dithering, which would add noise to noise.
    picture = Image.fromarray(sheet).quantize(palette=palette, dither=Image.Dither.NONE)
    picture.save(arguments.output, optimize=True)
    print(arguments.output)
    return 0


def contact_sheet(scenes: Sequence[Scene], indices: Sequence[int]) -> NDArray[np.uint8]:
    """Frames of scenes of one size, (H, W, 3) RGB: two rows for each scene, plain and outlined."""
    rows = []
    for scene in scenes:
        sequence = scene.render(indices)
        frames = sequence.frames
        if frames.ndim == 3:
            frames = np.repeat(frames[..., None], 3, axis=-1)
        rows += [np.concatenate(list(f), axis=1) for f in (frames, _outlined(frames, sequence))]
    return np.concatenate(rows)


def _outlined(frames: NDArray[np.uint8], sequence: ImageSequence) -> NDArray[np.uint8]:
    frames = frames.copy()
    for number in range(len(sequence.names)):
        masks = sequence.masks[:, number]
        edges = masks & ~ndimage.binary_erosion(masks, np.ones((1, 3, 3)))
        frames[edges] = OUTLINES[number % len(OUTLINES)]
    return frames


if __name__ == "__main__":
    raise SystemExit(main())
