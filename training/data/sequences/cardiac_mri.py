"""Synthetic cine MRI of the heart in short axis. No patient's data, of no clinical worth.

Imitates a balanced steady-state film of one slice: bright blood, dark myocardium, the right
ventricle a crescent at the upper left of the left ventricle, bright fat, black lungs, and below the
diaphragm the liver. The ring of myocardium keeps its area while it contracts, so it thickens.
Papillary muscles count as cavity.

Frame in millimetres: x to the right of the display (the patient's left), y down, the origin in the
middle of the left ventricle.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.sequences.cardiac_cycle import ejected
from training.data.sequences.sequence import Frame, Scene

Floats = NDArray[np.float64]

BLOOD, MYOCARDIUM, FAT, MUSCLE, LIVER, LUNG, BONE = 0.82, 0.27, 0.80, 0.30, 0.36, 0.08, 0.45
"""Mean signal; 1 is white."""

SYSTOLIC_THICKENING = 0.12
"""Growth of the ring's area at end systole: the heart also shortens through the slice."""


class CardiacCine(Scene):
    """A heart and its beat.

    Args:
        seed: Same seed, same heart, motion and noise.
        size_px: Side of the square picture.
        length: Frames.
    """

    modality = "MRI"
    names = ("right ventricle", "myocardium", "left ventricle")

    def __init__(self, seed: int, size_px: int = 128, length: int = 16) -> None:
        rng = np.random.default_rng((seed, 0))
        self.length = length
        self._seed = seed
        field_mm = rng.uniform(165, 225)
        self.pixel_spacing_mm = (field_mm / size_px, field_mm / size_px)
        middle = (np.arange(size_px) - (size_px - 1) / 2) * field_mm / size_px
        off_x, off_y = rng.uniform(-16, 16, 2)
        self._x, self._y = np.meshgrid(middle - off_x, middle - off_y)

        # A beat and a bit, from any moment of it.
        self._first_phase = rng.uniform(0, 1)
        self._beats = rng.uniform(0.9, 1.4)

        level = rng.uniform(0.1, 0.8)  # from base to apex
        self._endo_mm = rng.uniform(21, 27) * (1 - 0.45 * level**2)
        self._wall_mm = rng.uniform(7.5, 11.0)
        self._shortening = rng.uniform(0.2, 0.38)
        self._oval = rng.uniform(0, 0.09)
        self._oval_at = rng.uniform(0, np.pi)
        self._septum_at = np.deg2rad(rng.uniform(190, 225))
        self._rv_reach_mm = rng.uniform(20, 29) * (1 - 0.5 * level)
        self._rv_half_height_mm = rng.uniform(32, 40) * (1 - 0.4 * level)
        spread = np.deg2rad(rng.uniform(35, 60))
        self._papillary_at = self._septum_at + np.pi + np.array([spread, -spread])
        self._papillary_mm = rng.uniform(2.8, 4.6, 2)
        self._drift_mm = rng.uniform(-2.5, 2.5, 2)
        self._body = self._drawn_body(rng)
        self._shade = self._drawn_shade(rng)
        self._noise = rng.uniform(0.02, 0.055)
        self._contrast = rng.uniform(0.85, 1.15)

    def frame(self, index: int) -> Frame:
        """Render one moment of the beat; masks (3, H, W) as `names`, which do not overlap."""
        phase = self._first_phase + self._beats * index / max(self.length - 1, 1)
        systole = ejected(phase)
        # The whole heart moves a little with each contraction.
        x, y = self._x - self._drift_mm[0] * systole, self._y - self._drift_mm[1] * systole
        radius, angle = np.hypot(x, y), np.arctan2(y, x)

        lobes = 1 + self._oval * np.cos(2 * (angle - self._oval_at))
        endo = self._endo_mm * (1 - self._shortening * systole) * lobes
        ring_mm2 = (self._endo_mm + self._wall_mm) ** 2 - self._endo_mm**2
        epi = np.sqrt(endo**2 + ring_mm2 * (1 + SYSTOLIC_THICKENING * systole))
        cavity, ventricle = radius < endo, radius < epi

        right = self._right_level(x, y, systole, grown_mm=0.0) < 1
        right_wall = self._right_level(x, y, systole, grown_mm=3.0) < 1
        masks = np.stack([right & ~ventricle, ventricle & ~cavity, cavity])

        signal = self._body.copy()
        pericardium = (self._right_level(x, y, systole, grown_mm=8.0) < 1) | (radius < epi + 4)
        signal[pericardium] = FAT * 0.85
        signal[right_wall | ventricle] = MYOCARDIUM
        signal[masks[0] | masks[2]] = BLOOD
        for at, size in zip(self._papillary_at, self._papillary_mm, strict=True):
            reach = self._endo_mm * (1 - self._shortening * systole) * 0.66
            spot = np.hypot(x - reach * np.cos(at), y - reach * np.sin(at)) < size
            signal[spot & cavity] = MYOCARDIUM
        return Frame(self._as_picture(signal, index), masks)

    def _right_level(self, x: Floats, y: Floats, systole: float, grown_mm: float) -> Floats:
        """Level of the right ventricle's ellipse; the left one is later cut out of it."""
        towards, along = np.cos(self._septum_at), np.sin(self._septum_at)
        outer = self._endo_mm + self._wall_mm
        across = x * towards + y * along - outer * 0.72
        upright = -x * along + y * towards
        reach = (self._rv_reach_mm + outer * 0.28) * (1 - 0.28 * systole) + grown_mm
        height = self._rv_half_height_mm * (1 - 0.10 * systole) + grown_mm
        # Narrower towards the diaphragm, as the free wall runs.
        return np.hypot(across / reach, upright / height) + 0.12 * across * upright / (
            reach * height
        )

    def _drawn_body(self, rng: np.random.Generator) -> Floats:
        """Signal of everything around the heart, which stays where it is."""
        x, y = self._x, self._y

        def ellipse(cx: float, cy: float, rx: float, ry: float) -> Floats:
            return np.hypot((x - cx) / rx, (y - cy) / ry)

        body = np.full_like(x, 0.01)
        half_width, half_depth = rng.uniform(150, 175), rng.uniform(100, 118)
        middle = (rng.uniform(-50, -30), rng.uniform(30, 42))
        fat_mm = rng.uniform(7, 20)
        for thickness, signal in ((0.0, FAT), (fat_mm, MUSCLE), (fat_mm + 11, LUNG)):
            body[ellipse(*middle, half_width - thickness, half_depth - thickness) < 1] = signal
        vessels = ndimage.gaussian_filter(rng.standard_normal(x.shape), 1.2)
        in_lung = body == LUNG
        body[in_lung & (vessels > 2.2 * vessels.std())] = 0.3
        # Fat between the heart and the chest wall.
        body[(ellipse(-30, -42, 48, 24) < 1) & in_lung] = FAT * 0.8
        diaphragm = rng.uniform(34, 46)
        body[(ellipse(-45, diaphragm + 52, 105, 54) < 1) & in_lung] = LIVER
        body[(ellipse(62, diaphragm + 58, 52, 40) < 1) & in_lung] = rng.choice([0.12, 0.5])
        body[ellipse(-40, 112, 26, 22) < 1] = BONE
        body[ellipse(rng.uniform(0, 12), 92, 11, 11) < 1] = BLOOD * 0.95
        return body

    def _drawn_shade(self, rng: np.random.Generator) -> Floats:
        """Sensitivity of the surface coil: brighter near the chest wall, smooth."""
        nodes = rng.uniform(-1, 1, (3, 3))
        size = len(self._x)
        uneven = ndimage.zoom(nodes, size / 3, order=2, mode="nearest", grid_mode=True)
        span = (self._y - self._y.min()) / np.ptp(self._y)
        return np.exp(0.18 * uneven - rng.uniform(0.1, 0.7) * (span - 0.4))

    def _as_picture(self, signal: Floats, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng((self._seed, 1, index))
        texture = ndimage.gaussian_filter(rng.standard_normal(signal.shape), 2.0)
        signal = signal * (1 + 0.25 * texture)
        blurred = ndimage.gaussian_filter(signal, 0.6) ** self._contrast * self._shade
        # The picture is the magnitude of a complex signal, so its noise is Rician.
        real, imaginary = rng.standard_normal((2, *signal.shape)) * self._noise
        magnitude = np.hypot(blurred + real, imaginary)
        return (magnitude.clip(0, 1) * 255).round().astype(np.uint8)
