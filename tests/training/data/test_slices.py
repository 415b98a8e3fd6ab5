"""Views of a template: reproducible, with masks that lie where the picture shows them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from training.data.slices import SliceConfig, SliceSampler
from training.data.structures import STRUCTURES
from training.data.templates import GRID_SHAPE, GRID_START_MM

NAMES = [structure.name for structure in STRUCTURES]
WHOLE_BRAIN = NAMES.index("whole brain")
RIGID = {
    "field_of_view_mm": (200.0, 200.0),
    "in_plane_rotation_deg": 0.0,
    "tilt_deg": 0.0,
    "anisotropy": 0.0,
    "shift_mm": 0.0,
    "elastic_mm": 0.0,
}


@pytest.fixture(scope="module")
def sampler(train_template):
    return SliceSampler(train_template, SliceConfig(long_side=96))


def draws(sampler, count, seed=0, structure=None):
    rng = np.random.default_rng(seed)
    return [sampler.draw(rng, structure) for _ in range(count)]


def test_an_equal_generator_gives_equal_views(sampler):
    for one, other in zip(draws(sampler, 4), draws(sampler, 4), strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.masks, other.masks)
        assert torch.equal(one.present, other.present)


def test_the_next_view_is_another_one(sampler):
    first, second = draws(sampler, 2)
    assert first.image.shape != second.image.shape or not torch.equal(first.image, second.image)


def test_torchs_own_generator_plays_no_part(sampler):
    torch.manual_seed(1)
    (one,) = draws(sampler, 1)
    torch.manual_seed(2)
    (other,) = draws(sampler, 1)
    assert torch.equal(one.image, other.image)


def test_shapes_types_and_presence(sampler):
    for view in draws(sampler, 12):
        height, width = view.image.shape
        assert max(height, width) == 96
        assert min(height, width) >= round(0.8 * 96)
        assert view.image.dtype == torch.uint8
        assert view.masks.shape == (16, height, width)
        assert view.masks.dtype == torch.bool
        assert torch.equal(view.present, view.masks.sum(dim=(1, 2)) >= 64)
        assert view.present.any()


def test_the_structure_aimed_at_is_in_the_view(sampler):
    for structure in range(16):
        (view,) = draws(sampler, 1, seed=structure, structure=structure)
        assert view.present[structure], NAMES[structure]


def test_small_structures_get_their_share_of_views(sampler):
    present = torch.stack([view.present for view in draws(sampler, 60)]).float().mean(dim=0)
    assert present[WHOLE_BRAIN] == 1
    assert present.min() > 0.05, NAMES[int(present.argmin())]


@pytest.mark.parametrize("seed", range(6))
def test_the_brains_mask_is_where_the_picture_is_bright(sampler, seed):
    # The strongest check of the deformation: masks and picture go through the same points.
    (view,) = draws(sampler, 1, seed=seed)
    smooth = ndimage.median_filter(view.image.numpy(), 3)
    shown = ndimage.binary_fill_holes(smooth > 30)
    brain = ndimage.binary_fill_holes(view.masks[WHOLE_BRAIN].numpy())
    dice = 2 * (shown & brain).sum() / (shown.sum() + brain.sum())
    assert dice > 0.93
    assert view.image[torch.from_numpy(brain)].float().mean() > 60


@pytest.mark.parametrize("seed", range(4))
def test_ventricles_are_dark_and_white_matter_is_bright(sampler, seed):
    names = ("lateral ventricles", "cerebral white matter")
    dark, bright = (NAMES.index(name) for name in names)
    (view,) = draws(sampler, 1, seed=seed, structure=dark)
    assert view.present[bright]
    picture = view.image.float()
    assert picture[view.masks[dark]].mean() < picture[view.masks[bright]].mean() - 20


def test_without_deformation_the_masks_are_a_plane_of_the_template(train_template):
    config = SliceConfig(long_side=80, square_share=1.0, **RIGID)
    sampler = SliceSampler(train_template, config)
    steps = (np.arange(80) - 39.5) * 2.5
    for view in draws(sampler, 3):
        bits = sum(view.masks[i].numpy().astype(np.int64) << i for i in range(16))

        def plane(z, mirror):
            x = np.rint(-steps * mirror - GRID_START_MM[0]).astype(int)
            y = np.rint(-steps - 18 - GRID_START_MM[1]).astype(int)
            x_inside, y_inside = (
                (v >= 0) & (v < n) for v, n in zip((x, y), GRID_SHAPE, strict=False)
            )
            rows = train_template.structure_bits[
                np.clip(x, 0, GRID_SHAPE[0] - 1)[None], np.clip(y, 0, GRID_SHAPE[1] - 1)[:, None], z
            ]
            return np.where(x_inside[None] & y_inside[:, None], rows, 0)

        agreement = max(
            (plane(z, mirror) == bits).mean() for z in range(GRID_SHAPE[2]) for mirror in (1, -1)
        )
        assert agreement > 0.999  # a voxel halfway between two may be rounded to either


def test_without_deformation_front_is_up_and_back_is_down(train_template):
    config = SliceConfig(long_side=80, square_share=1.0, **RIGID)
    sampler = SliceSampler(train_template, config)
    front, back = NAMES.index("frontal lobe"), NAMES.index("occipital lobe")
    seen = 0
    for view in draws(sampler, 20, seed=3):
        if view.present[front] and view.present[back]:
            seen += 1
            rows = [view.masks[i].nonzero()[:, 0].float().mean() for i in (front, back)]
            assert rows[0] < rows[1] - 20
    assert seen >= 5


def test_planes_of_the_cerebellum_are_low_and_those_of_the_parietal_lobe_high(train_template):
    sampler = SliceSampler(train_template, SliceConfig(long_side=64, **RIGID))
    names = ("cerebellum", "brain stem", "parietal lobe")
    cerebellum, stem, parietal = (NAMES.index(name) for name in names)
    low = torch.stack([view.present for view in draws(sampler, 10, structure=cerebellum)])
    high = torch.stack([view.present for view in draws(sampler, 10, structure=parietal)])
    assert low[:, stem].sum() > 2 > high[:, stem].sum()
    assert high[:, parietal].all()
    assert low[:, parietal].sum() < 5


def test_pictures_that_are_not_square_lie_either_way(train_template):
    config = SliceConfig(long_side=64, square_share=0.0, side_ratio=0.8)
    shapes = {tuple(view.image.shape) for view in draws(SliceSampler(train_template, config), 30)}
    assert all(max(shape) == 64 and 51 <= min(shape) <= 64 for shape in shapes)
    assert any(height < width for height, width in shapes)
    assert any(height > width for height, width in shapes)


def test_square_pictures_only_where_asked(train_template):
    config = SliceConfig(long_side=64, square_share=1.0)
    views = draws(SliceSampler(train_template, config), 10)
    assert {tuple(view.image.shape) for view in views} == {(64, 64)}
