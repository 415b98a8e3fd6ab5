"""Stacks of both volumes: directions, deformation and masks against the volumes themselves."""

import numpy as np
import pytest

from training.data.phantom_views import PHANTOM_TARGETS, PhantomViewConfig
from training.data.phantoms import LABELS
from training.data.sequences.abdomen_stack import AbdomenStack
from training.data.sequences.brain_stack import BrainStack
from training.data.slices import SliceConfig
from training.data.structures import STRUCTURES
from training.data.templates import GRID_START_MM

STRAIGHT = SliceConfig(
    field_of_view_mm=(192.0, 192.0),
    in_plane_rotation_deg=0,
    tilt_deg=0,
    anisotropy=0,
    shift_mm=0,
    elastic_mm=0,
)
NAMES = [structure.name for structure in STRUCTURES]
DIRECTIONS = {"axial": "front", "coronal": "top", "sagittal": "top"}


@pytest.mark.parametrize("plane", DIRECTIONS)
def test_masks_without_deformation_are_those_of_the_template(train_template, plane):
    stack = BrainStack(train_template, 1, size_px=96, length=6, plane=plane, config=STRAIGHT)
    voxels = stack._first_plane + stack._step * 3 - GRID_START_MM
    x, y, z = np.moveaxis(np.rint(voxels).astype(int), -1, 0)
    shape = train_template.structure_bits.shape
    inside = (x >= 0) & (x < shape[0]) & (y >= 0) & (y < shape[1]) & (z >= 0) & (z < shape[2])
    bits = np.zeros(x.shape, int)
    bits[inside] = train_template.structure_bits[x[inside], y[inside], z[inside]]
    for bit, mask in enumerate(stack.frame(3).masks):
        assert np.array_equal(mask, bits & (1 << bit) > 0)


@pytest.mark.parametrize("plane", DIRECTIONS)
def test_rows_run_from_front_or_top(train_template, plane):
    stack = BrainStack(
        train_template,
        2,
        size_px=96,
        length=48,
        through="whole brain",
        plane=plane,
        config=STRAIGHT,
    )
    masks = stack.render(range(0, 48, 2)).masks

    def row(name):
        return np.nonzero(masks[:, NAMES.index(name)])[1].mean()

    if plane == "axial":
        assert row("frontal lobe") < row("occipital lobe")
    else:
        assert row("parietal lobe") < row("cerebellum")


def test_neighbouring_slices_belong_together(train_template):
    masks = BrainStack(train_template, 4, size_px=96, length=10).render().masks[:, -1]
    overlap = (masks[:-1] & masks[1:]).sum() / (masks[:-1] | masks[1:]).sum()
    assert overlap > 0.85


def test_slices_of_an_abdomen_are_in_order_and_through_the_organ():
    stack = AbdomenStack(5, size_px=96, length=8, through="left kidney")
    areas = stack.render().masks.sum(axis=(2, 3))[:, LABELS["left kidney"] - 1]
    assert areas[2:6].min() > 0
    assert stack.pixel_spacing_mm[0] * 96 >= PhantomViewConfig().field_of_view_mm[0]
    assert stack.names == tuple(target.name for target in PHANTOM_TARGETS)


def test_bodies_miss_an_organ_at_times_but_not_the_one_asked_for():
    missing = [AbdomenStack(seed, through="spleen")._anatomy.missing for seed in range(30)]
    assert 4 < sum(map(bool, missing)) < 22
    assert not any("spleen" in names for names in missing)
