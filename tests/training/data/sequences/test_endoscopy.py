import numpy as np
import pytest

from training.data.sequences import endoscopy
from training.data.sequences.endoscopy import Colonoscopy


def scene(seed, leaving, monkeypatch, length=12):
    monkeypatch.setattr(endoscopy, "LEAVING_SHARE", float(leaving))
    return Colonoscopy(seed, size_px=64, length=length)


@pytest.mark.parametrize("seed", range(4))
def test_the_polyp_leaves_the_view_and_comes_back(seed, monkeypatch):
    area = scene(seed, True, monkeypatch).render().masks.sum(axis=(1, 2, 3))
    assert area[0] > 20
    assert area[-1] > 20
    assert area.min() < 0.1 * area[0]


@pytest.mark.parametrize("seed", range(4))
def test_or_stays_in_it(seed, monkeypatch):
    area = scene(seed, False, monkeypatch).render().masks.sum(axis=(1, 2, 3))
    assert area.min() > 15


def test_the_corners_are_cut_and_hold_no_polyp(monkeypatch):
    film = scene(1, True, monkeypatch).render()
    for corner in (np.s_[:, :5, :5], np.s_[:, :5, -5:], np.s_[:, -5:, :5], np.s_[:, -5:, -5:]):
        assert (film.frames[corner] == 0).all()
        assert not film.masks[:, 0][corner].any()


def test_mucosa_is_red_and_the_lumen_dark(monkeypatch):
    frame = scene(2, False, monkeypatch, length=1).frame(0)
    lit = frame.image[frame.image.sum(axis=-1) > 150].mean(axis=0)
    assert lit[0] > 1.2 * lit[2]
    view = frame.image[16:48, 16:48].mean(axis=-1)
    assert view.min() < 0.4 * np.median(frame.image[frame.image.any(axis=-1)].mean(axis=-1))


@pytest.mark.parametrize("seed", range(4))
def test_rays_end_on_a_surface(seed, monkeypatch):
    film = scene(seed, False, monkeypatch)
    camera = film._camera_at(0.0)
    points, depth = film._march(camera, film._rays @ film._turned(0.0, camera).T)
    near = (depth < 60) & film._window
    assert near.mean() > 0.4
    # Rays that graze a fold are still on their way.
    assert (np.abs(film._surface(points)[near]) < 0.5).mean() > 0.93
