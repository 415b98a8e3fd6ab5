import numpy as np
import pytest
from scipy import ndimage

from training.data.phantoms import (
    LABELS,
    LESION_SITES,
    REMOVABLE,
    Z_RANGE_MM,
    draw_anatomy,
    render_slice,
    window,
)

HEIGHTS = np.arange(*Z_RANGE_MM, 12.5)


def volume(anatomy):
    return [render_slice(anatomy, z) for z in HEIGHTS]


@pytest.fixture(scope="module")
def bodies():
    return {seed: volume(draw_anatomy(seed, missing=())) for seed in range(6)}


def test_the_same_seed_gives_the_same_body_and_noise():
    first, second = (render_slice(draw_anatomy(7), 20.0) for _ in range(2))
    np.testing.assert_array_equal(first.hu, second.hu)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (render_slice(draw_anatomy(8), 20.0).labels != first.labels).any()


def test_every_organ_is_seen_in_every_body(bodies):
    for slices in bodies.values():
        shown = np.concatenate([s.labels.ravel() for s in slices])
        areas = np.bincount(shown, minlength=14)[1:]
        assert (areas > 0).all(), [name for name, label in LABELS.items() if not areas[label - 1]]
        assert areas[LABELS["liver"] - 1] == areas.max()


def test_sides_follow_the_radiological_display(bodies):
    def column(slices, organ):
        shown = [s.labels == LABELS[organ] for s in slices]
        return np.mean([np.nonzero(mask)[1].mean() for mask in shown if mask.any()])

    for slices in bodies.values():
        assert column(slices, "liver") < column(slices, "spleen")
        assert column(slices, "right kidney") < column(slices, "left kidney")
        assert column(slices, "inferior vena cava") < column(slices, "aorta")


@pytest.mark.parametrize("organ", REMOVABLE)
def test_a_missing_organ_is_nowhere_and_the_others_stay(organ):
    whole, without = (volume(draw_anatomy(3, missing=missing)) for missing in ([], [organ]))
    assert any(LABELS[organ] in s.labels for s in whole)
    assert not any(LABELS[organ] in s.labels for s in without)
    for before, after in zip(whole, without, strict=True):
        untouched = ~ndimage.binary_dilation(before.labels == LABELS[organ])
        if organ == "spleen":  # what lay behind it may come to light
            continue
        kept = (before.labels > 0) & (before.labels != LABELS[organ]) & untouched
        np.testing.assert_array_equal(after.labels[kept], before.labels[kept])


def test_an_unknown_organ_is_refused():
    with pytest.raises(ValueError, match="unknown organ appendix; known: liver, right kidney"):
        draw_anatomy(0, missing=["appendix"])


def test_two_bodies_of_five_lack_an_organ():
    lacking = [draw_anatomy(seed).missing for seed in range(1000, 1600)]
    assert 0.33 < np.mean([bool(missing) for missing in lacking]) < 0.47
    assert set().union(*lacking) == set(REMOVABLE)


def test_attenuation_is_plausible(bodies):
    means = {
        name: np.mean(
            [
                s.hu[ndimage.binary_erosion(s.labels == label, iterations=2)].mean()
                for slices in bodies.values()
                for s in slices
                if ndimage.binary_erosion(s.labels == label, iterations=2).any()
            ]
        )
        for name, label in LABELS.items()
        if "adrenal" not in name
    }
    assert 90 < means["liver"] < 120
    assert 100 < means["spleen"] < 135
    assert means["aorta"] > means["liver"] > means["pancreas"] > means["gallbladder"]
    assert -5 < means["gallbladder"] < 30


def test_neighbouring_slices_look_alike():
    body = draw_anatomy(1)
    near, nearer = render_slice(body, 20.0), render_slice(body, 21.0)
    assert (near.labels == nearer.labels).mean() > 0.98


def test_the_window_has_its_documented_ends():
    hu = np.array([-500.0, -160.0, 40.0, 240.0, 900.0], np.float32)
    np.testing.assert_array_equal(window(hu), [0, 0, 128, 255, 255])


def test_a_lesion_lies_inside_its_organ_and_changes_nothing_else():
    for seed in range(8):
        body, healthy = (draw_anatomy(seed, lesion=lesion) for lesion in (True, False))
        (lesion,) = [solid for solid in body.solids if solid.lesion]
        assert {label: name for name, label in LABELS.items()}[lesion.label] in LESION_SITES
        cuts = [
            (render_slice(body, z), render_slice(healthy, z))
            for z in lesion.centres_mm[0, 2] + np.arange(-15, 16, 3)
        ]
        assert any(with_it.lesions.any() for with_it, _ in cuts), seed
        for with_it, without in cuts:
            np.testing.assert_array_equal(with_it.labels, without.labels)
            assert not without.lesions.any()
            assert (with_it.labels[with_it.lesions] == lesion.label).all()
            core = ndimage.binary_erosion(with_it.lesions, iterations=2)
            if core.any():
                assert with_it.hu[core].mean() < without.hu[core].mean() - 15


def test_half_the_bodies_have_a_lesion():
    share = np.mean([any(s.lesion for s in draw_anatomy(n).solids) for n in range(400)])
    assert 0.43 < share < 0.57


def test_a_shifted_picture_shows_the_same_body_elsewhere():
    body = draw_anatomy(2, lesion=False)
    still = render_slice(body, 20.0, spacing_mm=2.0)
    moved = render_slice(body, 20.0, spacing_mm=2.0, middle_mm=(10.0, -6.0))
    # The smooth bend is interpolated from other points: a few pixels at borders differ.
    assert (moved.labels[:-5, 3:] != still.labels[5:, :-3]).mean() < 1e-3
