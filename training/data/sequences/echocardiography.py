"""Synthetic echocardiography, apical view. No patient's data, of no clinical worth.

Imitates a sector scan from the apex, with two or four chambers: the left ventricle shortens and
narrows with each beat, its wall thickens, the mitral valve opens, the left atrium fills in systole.
Echoes are drawn on the beams (depth by angle) as fully developed speckle, that is the magnitude of
a filtered complex noise, then log-compressed and converted to the picture as a scanner does.

Frame in millimetres: the probe at the origin, x to the right of the display, y down the depth.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.sequences.cardiac_cycle import ejected, mitral_opening
from training.data.sequences.sequence import Frame, Scene

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TISSUE_DB, MYOCARDIUM_DB, BLOOD_DB, BRIGHT_DB = -31.0, -20.0, -50.0, -7.0
"""Mean echo of what is around the heart, of muscle, of blood, and of pericardium and valves."""

DYNAMIC_RANGE_DB = 52.0
"""From black to white."""

_PROBE_MM = 6.0
"""Nothing is seen nearer than this."""


class _Chambers(NamedTuple):
    """What lies where, at any points; `left`, `myocardium` and `atrium` do not overlap."""

    left: Bools
    myocardium: Bools
    atrium: Bools
    right_heart: Bools
    thin_walls: Bools
    bright: Bools


class Echocardiogram(Scene):
    """A heart, its beat and the scanner.

    Args:
        seed: Same seed, same heart, motion and speckle.
        size_px: Side of the square picture.
        length: Frames.
    """

    modality = "ultrasound"
    names = ("left ventricle", "myocardium", "left atrium")

    def __init__(self, seed: int, size_px: int = 128, length: int = 16) -> None:
        rng = np.random.default_rng((seed, 0))
        self.length = length
        self._seed = seed
        self._first_phase = rng.uniform(0, 1)
        self._beats = rng.uniform(0.9, 1.6)

        self._four_chambers = bool(rng.random() < 0.65)
        self._length_mm = rng.uniform(76, 94)
        self._half_width_mm = rng.uniform(22, 28)
        self._wall_mm = rng.uniform(8, 11)
        self._bend_mm = rng.uniform(-4, 4)
        self._atrium_mm = (rng.uniform(20, 27), rng.uniform(18, 23))
        self._shortening = (rng.uniform(0.10, 0.19), rng.uniform(0.18, 0.38))
        self._apex_mm = (rng.uniform(-6, 12), rng.uniform(20, 30))
        self._tilt = np.deg2rad(rng.uniform(-14, 14))

        depth_mm = self._apex_mm[1] + self._length_mm + 2 * self._atrium_mm[0] + rng.uniform(0, 14)
        half_angle = np.deg2rad(rng.uniform(34, 40))
        self._depths_mm = np.linspace(_PROBE_MM, depth_mm, round(1.25 * size_px))
        self._angles = np.linspace(-half_angle, half_angle, round(0.8 * size_px))
        width_mm = 2.04 * depth_mm * np.sin(half_angle) * rng.uniform(1.0, 1.2)
        pixel_mm = width_mm / size_px
        self.pixel_spacing_mm = (pixel_mm, pixel_mm)
        columns = (np.arange(size_px) - (size_px - 1) / 2) * pixel_mm
        rows = (np.arange(size_px) + 0.5) * pixel_mm - (size_px * pixel_mm - depth_mm) / 2
        self._pixels_xy = np.stack(np.meshgrid(columns, rows))
        self._beams_xy = self._depths_mm[:, None] * np.stack(
            [np.broadcast_to(f(self._angles), self._polar_shape) for f in (np.sin, np.cos)]
        )
        self._place_on_beams()

        self._gain_db = self._drawn_gain(rng)
        self._speckle = [self._drawn_speckle(rng) for _ in range(2)]
        self._haze_db = rng.uniform(-6, 8)

    @property
    def _polar_shape(self) -> tuple[int, int]:
        return len(self._depths_mm), len(self._angles)

    def _place_on_beams(self) -> None:
        """Where each pixel lies among depths and angles, for the scan conversion."""
        x, y = self._pixels_xy
        radius, angle = np.hypot(x, y), np.arctan2(x, y)
        depths, angles = self._depths_mm, self._angles
        self._pixel_at = np.stack(
            [
                (radius - depths[0]) / (depths[1] - depths[0]),
                (angle - angles[0]) / (angles[1] - angles[0]),
            ]
        )
        self._sector = (
            (radius >= depths[0]) & (radius <= depths[-1]) & (np.abs(angle) <= angles[-1])
        )

    def frame(self, index: int) -> Frame:
        """Render one moment of the beat; masks (3, H, W) as `names`, inside the sector."""
        phase = self._first_phase + self._beats * index / max(self.length - 1, 1)
        chambers = self._chambers(self._pixels_xy, phase)
        masks = np.stack([chambers.left, chambers.myocardium, chambers.atrium]) & self._sector

        echo_db = self._echo_db(self._chambers(self._beams_xy, phase))
        amplitude = ndimage.gaussian_filter(10 ** (echo_db / 20), (0.8, 1.0))
        # Speckle changes from frame to frame, but not all of it.
        turn = 0.4 * index
        speckle = np.cos(turn) * self._speckle[0] + np.sin(turn) * self._speckle[1]
        fresh = self._drawn_speckle(np.random.default_rng((self._seed, 1, index)))
        envelope = amplitude * np.abs(0.9 * speckle + 0.44 * fresh)
        brightness = 1 + (20 * np.log10(envelope + 1e-5) + self._gain_db) / DYNAMIC_RANGE_DB
        picture = ndimage.map_coordinates(brightness, self._pixel_at, order=1, mode="nearest")
        picture = np.where(self._sector, picture.clip(0, 1), 0)
        return Frame((picture * 255).round().astype(np.uint8), masks)

    def _chambers(self, points_xy: Floats, phase: float) -> _Chambers:
        """What lies where among points (2, ...)."""
        systole = ejected(phase)
        long = self._length_mm * (1 - self._shortening[0] * systole)
        wide = self._half_width_mm * (1 - self._shortening[1] * systole)
        wall = self._wall_mm * (1 + 0.4 * systole)

        # s runs from the apex to the mitral valve, n to the side wall.
        dx, dy = points_xy[0] - self._apex_mm[0], points_xy[1] - self._apex_mm[1]
        s = -dx * np.sin(self._tilt) + dy * np.cos(self._tilt)
        n = dx * np.cos(self._tilt) + dy * np.sin(self._tilt)
        n = n - self._bend_mm * np.sin(np.pi * (s / long).clip(0, 1))

        above_valve = s < long
        left = (np.abs(n) < wide * _bullet(s / long)) & above_valve
        outer = (np.abs(n) < (wide + wall) * _bullet((s + wall) / (long + wall))) & above_valve
        shell = (np.abs(n) < (wide + wall + 3) * _bullet((s + wall + 3) / (long + wall + 3))) & (
            above_valve & ~outer
        )

        def oval(at_s: float, at_n: float, radius_s: float, radius_n: float) -> Floats:
            return np.hypot((s - at_s) / radius_s, (n - at_n) / radius_n)

        atrium_s, atrium_n = (radius * (1 + 0.14 * systole) for radius in self._atrium_mm)
        atrium_level = oval(long + 0.80 * atrium_s, -1.5, atrium_s, atrium_n)
        atrium = (atrium_level < 1) & ~above_valve
        thin_walls = (oval(long + 0.80 * atrium_s, -1.5, atrium_s + 3, atrium_n + 3) < 1) & (
            ~above_valve & ~atrium
        )
        right_heart = np.zeros_like(left)
        if self._four_chambers:
            side = -(wide + wall + 13)
            ventricle = (0.58 * long, side, 0.44 * long, 17.0 - 3 * systole)
            atrium_right = (long + 17, side + 1, 21.0, 17.0)
            for at_s, at_n, radius_s, radius_n in (ventricle, atrium_right):
                right_heart |= (oval(at_s, at_n, radius_s, radius_n) < 1) & ~outer & ~thin_walls
                thin_walls |= (oval(at_s, at_n, radius_s + 4, radius_n + 4) < 1) & ~outer
            thin_walls &= ~right_heart & ~atrium
            right_heart &= np.abs(s - long - 1) > 2  # the tricuspid valve
        return _Chambers(
            left,
            outer & ~left,
            atrium,
            right_heart,
            thin_walls,
            (shell & (n > 0)) | self._leaflets(s, n, long, wide, phase),
        )

    @staticmethod
    def _leaflets(s: Floats, n: Floats, long: float, wide: float, phase: float) -> Bools:
        """The mitral leaflets: from the annulus to the middle, and towards the apex when open."""
        hinge = wide * float(_bullet(np.array(1.0)))
        swing = np.deg2rad(15 + 65 * mitral_opening(phase))
        leaflets = np.zeros_like(s, dtype=np.bool_)
        for side, size in ((-1, 1.15), (1, 0.8)):
            along = (hinge - side * n) * np.cos(swing) + (long - s) * np.sin(swing)
            off = (hinge - side * n) * np.sin(swing) - (long - s) * np.cos(swing)
            leaflets |= (np.abs(off) < 1.3) & (along > -2) & (along < hinge * size)
        return leaflets

    def _echo_db(self, chambers: _Chambers) -> Floats:
        echo_db = np.full(self._polar_shape, TISSUE_DB)
        echo_db[chambers.thin_walls] = MYOCARDIUM_DB - 1
        echo_db[chambers.myocardium] = MYOCARDIUM_DB
        echo_db[chambers.left | chambers.atrium | chambers.right_heart] = BLOOD_DB + self._haze_db
        echo_db[chambers.bright] = BRIGHT_DB
        return echo_db

    def _drawn_gain(self, rng: np.random.Generator) -> Floats:
        """Uneven gain over depth and angle, with weak edges and clutter near the probe, dB."""
        depth = (self._depths_mm / self._depths_mm[-1])[:, None]
        nodes = rng.uniform(-1, 1, (7, 9))
        patches = ndimage.zoom(nodes, np.array(self._polar_shape) / nodes.shape)
        beams = np.interp(
            np.linspace(0, 1, self._polar_shape[1]), np.linspace(0, 1, 8), rng.uniform(-15, 3, 8)
        )
        edges = -9 * np.abs(np.linspace(-1, 1, self._polar_shape[1])) ** 6
        clutter = 24 * np.exp(-(self._depths_mm[:, None] - _PROBE_MM) / 7)
        return rng.uniform(-5, 3) + 8 * patches + beams + edges + clutter - 10 * depth**4

    def _drawn_speckle(self, rng: np.random.Generator) -> NDArray[np.complex128]:
        """Complex noise of unit mean power, correlated more across the beams than along them."""
        noise = rng.standard_normal((2, *self._polar_shape))
        real, imaginary = (ndimage.gaussian_filter(part, (0.9, 1.3)) for part in noise)
        speckle = real + 1j * imaginary
        return speckle / np.sqrt((np.abs(speckle) ** 2).mean())


def _bullet(share: Floats) -> Floats:
    """Half width of a ventricle along its axis: 0 at the apex (0), widest at 0.62, narrower at 1.

    Negative values lie outside.
    """
    round_end = np.sqrt((1 - (1 - share / 0.62) ** 2).clip(0))
    basal = 1 - 0.2 * ((share - 0.62) / 0.38) ** 2
    return np.where(share <= 0, -1.0, np.where(share < 0.62, round_end, basal))
