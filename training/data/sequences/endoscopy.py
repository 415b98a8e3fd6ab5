"""Synthetic colonoscopy with a polyp. No patient's data, of no clinical worth.

A camera with its light looks into a bent tube with haustral folds; one polyp sits on the wall. The
picture is found by marching each pixel's ray to the wall (sphere tracing), so folds hide what lies
behind them. Mucosa with vessels, wet highlights, light that falls off into the dark lumen,
vignetting, and the cut corners of an endoscope's picture. In a part of the films the camera turns
away, so that the polyp leaves the view and comes back.

Frame in millimetres: z along the bowel, x to the right of the display, y down.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.sequences.sequence import Frame, Scene

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

LEAVING_SHARE = 0.5
"""Share of films in which the polyp leaves the view."""

_COARSE = 4
"""The march starts on every fourth ray of each row and column."""
_COARSE_STEPS, _FINE_STEPS = 50, 14
"""Of the march along each ray; what is not reached by then lies in the dark."""
_CAUTION = 0.5
"""Share of the estimated distance that a step takes, since folds make the estimate too long."""
_MERGE_MM = 3.0
"""Width of the polyp's foot, where it runs into the wall."""
_TEXTURE_SIZE = (256, 512)
"""Texture of the wall: around the bowel, and along it."""
_TEXTURE_MM = 120.0
"""Length of bowel after which the texture repeats."""


class Colonoscopy(Scene):
    """A piece of bowel, its polyp and the camera's way.

    Args:
        seed: Same seed, same bowel and motion.
        size_px: Side of the square picture.
        length: Frames.
    """

    modality = "endoscopy"
    names = ("polyp",)

    def __init__(self, seed: int, size_px: int = 128, length: int = 16) -> None:
        # Single precision throughout: the march takes most of the time.
        rng = np.random.default_rng((seed, 0))
        self.length = length
        self._seed = seed
        self._radius_mm = rng.uniform(19, 26)
        self._fold_every_mm = rng.uniform(16, 26)
        self._fold_mm = rng.uniform(4, 9)
        self._fold_phase, self._fold_turn = rng.uniform(0, 2 * np.pi, 2)
        self._bend_mm = rng.uniform(2, 8)
        self._bend_phase = rng.uniform(0, 2 * np.pi)

        polyp_at = rng.uniform(0, 2 * np.pi)
        self._polyp_z_mm = rng.uniform(26, 38)
        size_mm = rng.uniform(5.5, 10.5)
        self._polyp_radii_mm = (size_mm * rng.uniform(0.8, 1.2, 3)).astype(np.float32)
        outwards = np.array([np.cos(polyp_at), np.sin(polyp_at), 0.0])
        middle = np.array([*self._centre_line(np.array(self._polyp_z_mm)), self._polyp_z_mm])
        reach_mm = self._radius_mm - rng.uniform(0.2, 0.7) * size_mm
        self._polyp_mm = (middle + outwards * reach_mm).astype(np.float32)
        self._lumps = rng.uniform((2.5, 0), (5, 2 * np.pi), (3, 2)).astype(np.float32)
        self._lump_mm = rng.uniform(0.2, 1.0)

        self._mucosa = np.array([0.80, 0.30, 0.20]) * rng.uniform(0.85, 1.12, 3)
        reddening = np.array([1.08, rng.uniform(0.55, 0.95), rng.uniform(0.6, 1.0)])
        self._polyp_colour = self._mucosa * reddening
        self._texture = _drawn_texture(rng)
        self._exposure = rng.uniform(0.8, 1.3)
        self._highlight = rng.uniform(0.5, 1.0)
        self._draw_way(rng)

        span = (np.arange(size_px) - (size_px - 1) / 2) * 2 / size_px
        u, v = np.meshgrid(span, span)
        focal = 1 / np.tan(np.deg2rad(rng.uniform(48, 58)))
        rays = np.stack([u, v, np.full_like(u, focal)], axis=-1)
        self._rays = (rays / _norm(rays)[..., None]).astype(np.float32)
        # Square with cut corners, as the optics' circle leaves them.
        self._window = np.abs(u) + np.abs(v) < rng.uniform(1.5, 1.75)
        self._vignette = 1 - rng.uniform(0.3, 0.6) * (u**2 + v**2) / 2

    def frame(self, index: int) -> Frame:
        """Render one moment; image (H, W, 3) RGB, masks (1, H, W) of the polyp."""
        time = index / max(self.length - 1, 1)
        camera = self._camera_at(time)
        rays = self._rays @ self._turned(time, camera).T
        points, depth = self._march(camera, rays)
        wall, polyp = self._distances(points)
        on_polyp = (polyp < wall) & self._window & (depth < 150)
        colours = self._lit(points, rays, depth, on_polyp)
        colours = colours * self._vignette[..., None]
        # A video processor compresses highlights before its gamma.
        video = (1 - np.exp(-1.6 * colours.clip(0))) ** (1 / 1.6)
        noise = np.random.default_rng((self._seed, 1, index)).normal(0, 0.02, video.shape)
        video = ndimage.gaussian_filter(video + noise, (0.5, 0.5, 0))
        picture = (video.clip(0, 1) * 255).round().astype(np.uint8)
        picture[~self._window] = 0
        return Frame(picture, on_polyp[None])

    def _draw_way(self, rng: np.random.Generator) -> None:
        """Where the camera goes, and how far it looks away from the polyp."""
        self._camera_z_mm = (rng.uniform(0, 4), rng.uniform(-3, 9))  # start, and travel
        self._sway_mm = rng.uniform(1, 4)
        self._sway_phase = rng.uniform(0, 2 * np.pi, 3)
        self._towards_polyp = rng.uniform(0.25, 0.7)
        leaves = rng.random() < LEAVING_SHARE
        self._away_deg = rng.uniform(60, 80) if leaves else 0.0
        self._away_at = rng.uniform(0.35, 0.65)
        self._roll_deg = rng.uniform(-25, 25)

    def _camera_at(self, time: float) -> Floats:
        z = self._camera_z_mm[0] + self._camera_z_mm[1] * time
        sway = self._sway_mm * np.sin(2 * np.pi * time + self._sway_phase[:2])
        place = np.array([*(self._centre_line(np.array(z)) + sway), z])
        return place.astype(np.float32)

    def _turned(self, time: float, camera: Floats) -> Floats:
        """Rotation (3, 3) whose columns are the camera's right, down and forward."""
        along = np.array([0.0, 0.0, 1.0])
        to_polyp = self._polyp_mm - camera
        to_polyp /= np.linalg.norm(to_polyp)
        forward = along + self._towards_polyp * (to_polyp - along)
        # Away from the polyp means to the other side of the lumen.
        away = along - to_polyp
        away -= (away @ forward) * forward / (forward @ forward)
        away /= np.linalg.norm(away)
        angle = np.deg2rad(self._away_deg) * np.exp(-(((time - self._away_at) / 0.16) ** 2))
        forward = np.cos(angle) * forward / np.linalg.norm(forward) + np.sin(angle) * away
        shake = 0.04 * np.sin(5 * np.pi * time + self._sway_phase)
        forward = forward + np.array([shake[0], shake[1], 0.0])
        forward /= np.linalg.norm(forward)
        roll = np.deg2rad(self._roll_deg) * np.sin(np.pi * time + self._sway_phase[2])
        right = np.cross([-np.sin(roll), np.cos(roll), 0.0], forward)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward], axis=1).astype(np.float32)

    def _centre_line(self, z: Floats) -> Floats:
        """Middle of the bowel at each z: x and y, (2, ...)."""
        # It bends away with depth, so that the lumen ends in a turn.
        turn = self._bend_mm * (z / 40) ** 2
        return np.stack([turn * np.cos(self._bend_phase), turn * np.sin(self._bend_phase)])

    def _distances(self, points: Floats) -> tuple[Floats, Floats]:
        """Distance to the wall and to the polyp, mm, about, each negative behind its surface."""
        x, y, z = np.moveaxis(points, -1, 0)
        middle = self._centre_line(z.clip(-20, 160))
        x, y = x - middle[0], y - middle[1]
        ring = (z + self._fold_phase * 4) / self._fold_every_mm
        ring = ring + 0.25 * np.sin(1.7 * ring + self._fold_phase)
        crest = ((1 + np.cos(2 * np.pi * ring)) / 2) ** 5
        angle = np.arctan2(y, x)
        # Three bands of muscle run along the colon, and the lumen is triangular between folds.
        lobes = 0.65 + 0.35 * np.cos(3 * angle + self._fold_turn + 0.5 * np.sin(2 * ring))
        wall = self._radius_mm - self._fold_mm * crest * lobes - np.hypot(x, y)
        offset = (points - self._polyp_mm) / self._polyp_radii_mm
        polyp = (_norm(offset) - 1) * self._polyp_radii_mm.min()
        waves = np.sin(self._lumps[:, 0] * offset + self._lumps[:, 1])
        lumps = waves[..., 0] * waves[..., 1] * waves[..., 2]
        return wall, polyp + self._lump_mm * lumps

    def _surface(self, points: Floats) -> Floats:
        """Distance to what is nearest; the polyp runs smoothly into the wall."""
        wall, polyp = self._distances(points)
        merged = (_MERGE_MM - np.abs(wall - polyp)).clip(0) / _MERGE_MM
        return np.minimum(wall, polyp) - _MERGE_MM / 4 * merged**2

    def _march(self, camera: Floats, rays: Floats) -> tuple[Floats, Floats]:
        """Points (H, W, 3) where the rays end, and how far they are, mm."""
        coarse = rays[::_COARSE, ::_COARSE]
        depth = self._marched(camera, coarse, np.zeros(coarse.shape[:2], np.float32), _COARSE_STEPS)
        # The nearest of the neighbours, and a little less: fine rays must start before the wall.
        depth = 0.93 * ndimage.minimum_filter(depth, size=3)
        depth = depth.repeat(_COARSE, axis=0).repeat(_COARSE, axis=1)
        height, width = rays.shape[:2]
        depth = self._marched(camera, rays, depth[:height, :width], _FINE_STEPS)
        return camera + depth[..., None] * rays, depth

    def _marched(self, camera: Floats, rays: Floats, depth: Floats, steps: int) -> Floats:
        for _ in range(steps):
            points = camera + depth[..., None] * rays
            depth = depth + _CAUTION * self._surface(points)
        return depth

    def _lit(self, points: Floats, rays: Floats, depth: Floats, on_polyp: Bools) -> Floats:
        """Colours (H, W, 3), linear, 1 is white."""
        middle = self._centre_line(points[..., 2].clip(-20, 160))
        around = np.arctan2(points[..., 1] - middle[1], points[..., 0] - middle[0])
        rows = around / (2 * np.pi) * _TEXTURE_SIZE[0]
        columns = points[..., 2] / _TEXTURE_MM * _TEXTURE_SIZE[1]
        vessels, bumps = (
            ndimage.map_coordinates(layer, [rows, columns], order=1, mode="grid-wrap")
            for layer in self._texture
        )
        normal = self._normal(points) + 0.5 * (bumps[..., None] - 0.5) * rays[..., ::-1]
        normal /= _norm(normal)[..., None]
        # The light sits at the camera, so the ray is also where the light comes from.
        facing = -(normal * rays).sum(axis=-1)
        colour = np.where(on_polyp[..., None], self._polyp_colour, self._mucosa)
        veins = np.where(on_polyp, 0.3, 1.0) * vessels
        colour = colour * (1 - veins[..., None] * np.array([0.18, 0.5, 0.42]))
        colour = colour * (0.9 + 0.25 * bumps[..., None])
        falloff = self._exposure / (0.45 + (depth / 24) ** 2)
        # Light also scatters inside the mucosa, so grazed edges are not black.
        diffuse = colour * ((0.3 + 0.7 * facing.clip(0)) * falloff)[..., None]
        glint = self._highlight * facing.clip(0) ** 90 * falloff
        return diffuse + glint[..., None]

    def _normal(self, points: Floats) -> Floats:
        """Unit normals towards the lumen, from differences."""
        step = 0.3
        here = self._surface(points)
        normal = np.stack(
            [self._surface(points + step * axis) - here for axis in np.eye(3, dtype=np.float32)],
            axis=-1,
        )
        return normal / (_norm(normal)[..., None] + 1e-9)


def _norm(vectors: Floats) -> Floats:
    """Length of (..., 3) vectors."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.sqrt(x * x + y * y + z * z)


def _drawn_texture(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Vessels and bumps of the wall, both in 0..1 and periodic."""

    def smooth(sigma: float) -> Floats:
        noise = ndimage.gaussian_filter(rng.standard_normal(_TEXTURE_SIZE), sigma, mode="wrap")
        return noise / noise.std()

    # Vessels run where a smooth field changes its sign.
    vessels = sum(
        weight * np.exp(-((smooth(sigma) / width) ** 2))
        for sigma, width, weight in ((14.0, 0.07, 0.6), (8.0, 0.09, 0.35))
    )
    bumps = 0.5 + 0.25 * smooth(3.0)
    return (
        np.asarray(vessels).clip(0, 1).astype(np.float32),
        bumps.clip(0, 1).astype(np.float32),
    )
