import numpy as np
import pytest

from training.data.sequences.echocardiography import Echocardiogram


@pytest.fixture(scope="module", params=range(3))
def film(request):
    return Echocardiogram(request.param, size_px=96, length=12).render()


def test_the_sector_is_narrow_at_the_probe_and_black_outside(film):
    seen = film.frames.max(axis=0) > 0
    widths = seen.sum(axis=1)[seen.any(axis=1)]
    assert widths[:3].max() < widths.max() / 4
    assert seen.mean() < 0.65
    # Blood can be black, too: the sector's rows run from the first seen pixel to the last.
    sector = (
        np.logical_or.accumulate(seen, axis=1)
        & np.logical_or.accumulate(seen[:, ::-1], axis=1)[:, ::-1]
    )
    outside = film.masks.any(axis=(0, 1)) & ~sector
    assert outside.sum() < 0.01 * sector.sum()


def test_chambers_lie_in_order_and_do_not_overlap(film):
    assert film.masks.sum(axis=1).max() == 1
    for left, myocardium, atrium in film.masks:
        depth = [np.nonzero(mask)[0].mean() for mask in (left, atrium)]
        assert depth[0] < depth[1]
        assert np.nonzero(myocardium)[0].min() < np.nonzero(left)[0].min()  # the apex is closed


def test_the_ventricle_empties_while_the_atrium_fills(film):
    left, _, atrium = np.moveaxis(film.masks.sum(axis=(2, 3)), 1, 0)
    assert left.max() / left.min() > 1.25
    assert np.corrcoef(left, atrium)[0, 1] < 0


def test_blood_is_darker_than_muscle(film):
    left, myocardium, atrium = (film.frames[film.masks[:, k]].mean() for k in range(3))
    assert max(left, atrium) < 0.6 * myocardium


def test_speckle_of_uniform_tissue_follows_the_rayleigh_distribution():
    scene = Echocardiogram(0, size_px=128)
    power = np.abs(scene._drawn_speckle(np.random.default_rng(0))) ** 2
    # The power of fully developed speckle is exponential: its deviation is its mean.
    assert power.mean() == pytest.approx(1)
    assert power.std() == pytest.approx(1, abs=0.08)
    assert np.median(power) == pytest.approx(np.log(2), abs=0.05)
