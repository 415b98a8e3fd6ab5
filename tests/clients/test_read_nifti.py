import itertools

import nibabel
import numpy as np
import pytest
import saymask
from nibabel.orientations import apply_orientation, inv_ornt_aff
from saymask import read_image

SHAPE = (5, 6, 7)  # of the canonical volume: x, y, z
CANONICAL = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
# Spacings and an origin of their own on each axis, and a little obliqueness.
CANONICAL_AFFINE = np.array(
    [[2.0, 0.1, 0.0, -11.0], [-0.1, 3.0, 0.2, 17.0], [0.05, 0.0, 4.0, 5.0], [0, 0, 0, 1]]
)
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
FULL = (0, 255)


def stored_as(orientation):
    """The same volume with its voxel axes permuted and flipped."""
    affine = CANONICAL_AFFINE @ inv_ornt_aff(orientation, SHAPE)
    return nibabel.Nifti1Image(apply_orientation(CANONICAL, orientation), affine)


def shown(plane, index):
    """What a radiologist sees, cut from the canonical volume (x to the right, y front, z up)."""
    picture = {
        "axial": CANONICAL[::-1, ::-1, index],
        "coronal": CANONICAL[::-1, index, ::-1],
        "sagittal": CANONICAL[index, ::-1, ::-1],
    }[plane]
    return picture.T.astype(np.uint8)


@pytest.fixture
def nifti(tmp_path):
    def write(image, name="brain.nii.gz"):
        nibabel.save(image, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_every_way_to_store_a_volume_shows_the_same_picture_in_the_same_place(nifti, plane):
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    for orientation in ORIENTATIONS:
        path = nifti(stored_as(orientation))
        stored_axis = int(orientation[axis, 0])
        count = SHAPE[axis]
        for canonical_index in (0, 2):
            flipped = orientation[axis, 1] < 0
            index = count - 1 - canonical_index if flipped else canonical_index
            source = read_image(path, plane=plane, slice_index=index, window=FULL)
            np.testing.assert_array_equal(source.pixels[:, :, 0], shown(plane, canonical_index))
            corner = {
                "axial": (SHAPE[0] - 1, SHAPE[1] - 1, canonical_index),
                "coronal": (SHAPE[0] - 1, canonical_index, SHAPE[2] - 1),
                "sagittal": (canonical_index, SHAPE[1] - 1, SHAPE[2] - 1),
            }[plane]
            np.testing.assert_allclose(
                source.geometry.world_ras(0, 0), (CANONICAL_AFFINE @ (*corner, 1))[:3], atol=1e-5
            )
            assert source.geometry.shape[stored_axis] == count


@pytest.mark.parametrize(
    ("plane", "letters", "spacing"),
    [
        ("axial", ("R", "L", "A", "P"), (3, 2)),
        ("coronal", ("R", "L", "S", "I"), (4, 2)),
        ("sagittal", ("A", "P", "S", "I"), (4, 3)),
    ],
)
def test_sides_and_spacing_are_those_of_the_plane(nifti, plane, letters, spacing):
    for orientation in ORIENTATIONS[::7]:
        source = read_image(nifti(stored_as(orientation)), plane=plane)
        assert source.geometry.edge_letters() == letters
        np.testing.assert_allclose(source.spacing_mm, spacing, rtol=0.01)
        assert source.pixel_area_mm2 == pytest.approx(spacing[0] * spacing[1], rel=0.01)


def test_without_wishes_the_middle_axial_slice_is_read(nifti):
    source = read_image(nifti(nibabel.Nifti1Image(CANONICAL, CANONICAL_AFFINE)), window=FULL)
    np.testing.assert_array_equal(source.pixels[:, :, 0], shown("axial", 3))
    assert (source.kind, source.part, source.case) == ("nifti", "axial3", "brain_axial3")
    assert source.description == "axial slice 3 (0 to 6)"


def test_values_are_scaled_as_the_header_says(nifti):
    image = nibabel.Nifti1Image(CANONICAL, CANONICAL_AFFINE)
    image.header.set_slope_inter(0.5, -10)
    source = read_image(nifti(image), window=(-10, 117.5))
    np.testing.assert_array_equal(source.pixels[:, :, 0], shown("axial", 3))


def test_without_a_window_percentiles_of_the_volume_are_used_and_said(nifti):
    values = np.zeros((10, 10, 10), np.float32)
    values[:5] = 1000
    values[0, 0, 0] = 1e9
    values[0, 0, 1] = np.nan
    source = read_image(nifti(nibabel.Nifti1Image(values, np.eye(4))))
    assert set(np.unique(source.pixels)) == {0, 255}
    assert source.intensity == "0..1000 (percentiles 0.5 and 99.5) -> 0..255"


def test_a_frame_of_a_series_is_read(nifti):
    series = np.stack([np.full(SHAPE, number * 10, np.int16) for number in range(4)], axis=-1)
    path = nifti(nibabel.Nifti1Image(series, np.eye(4)))
    assert read_image(path, window=FULL).pixels.max() == 0
    third = read_image(path, frame_number=3, window=FULL)
    assert set(np.unique(third.pixels)) == {20}
    assert third.part == "axial3_frame3"
    for number in (0, 5):
        with pytest.raises(saymask.InvalidArgument, match=rf"frame {number}: .* has 1\.\.4"):
            read_image(path, frame_number=number)


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1e3), ("micron", 1e-3), ("unknown", 1)])
@pytest.mark.parametrize("voxel_mm", [0.001, 0.4, 3.0])
def test_lengths_are_in_mm_whatever_the_files_unit(nifti, unit, mm, voxel_mm):
    image = nibabel.Nifti1Image(CANONICAL, np.diag([*[voxel_mm / mm] * 3, 1]))
    image.header.set_xyzt_units(unit, "sec")
    source = read_image(nifti(image))
    np.testing.assert_allclose(source.spacing_mm, voxel_mm, rtol=1e-6)
    assert source.pixel_area_mm2 == pytest.approx(voxel_mm**2)
    assert source.geometry.world_ras(0, 0)[0] == pytest.approx(4 * voxel_mm)


def test_an_affine_without_volume_is_refused(nifti):
    affine = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(CANONICAL, np.eye(4))
    image.set_sform(affine, code=1)
    image.set_qform(np.eye(4), code=0)
    with pytest.raises(saymask.InvalidArgument, match="singular"):
        read_image(nifti(image))


def test_nifti_2_and_plain_files_are_read(nifti):
    path = nifti(nibabel.Nifti2Image(CANONICAL, CANONICAL_AFFINE), "brain.nii")
    np.testing.assert_array_equal(read_image(path, window=FULL).pixels[:, :, 0], shown("axial", 3))


def test_a_real_volume_of_nibabel_is_read_where_nibabel_says_it_is():
    import nibabel.testing

    path = f"{nibabel.testing.data_path}/anatomical.nii"
    source, truth = read_image(path, plane="coronal"), nibabel.load(path)
    np.testing.assert_array_equal(source.geometry.affine_ras, truth.affine)
    assert source.geometry.shape == truth.shape


@pytest.mark.parametrize("index", [-1, 7, 99])
def test_a_slice_that_is_not_there_is_refused_with_those_that_are(nifti, index):
    path = nifti(nibabel.Nifti1Image(CANONICAL, CANONICAL_AFFINE))
    with pytest.raises(saymask.InvalidArgument, match=rf"axial slice {index}: .* has 0\.\.6"):
        read_image(path, slice_index=index)


def test_broken_and_unfitting_files_are_refused(nifti, tmp_path):
    whole = nifti(nibabel.Nifti1Image(CANONICAL, CANONICAL_AFFINE)).read_bytes()
    for content in (whole[:60], b"not a volume", whole[:-30]):
        (tmp_path / "broken.nii.gz").write_bytes(content)
        with pytest.raises(saymask.InvalidArgument, match=r"broken\.nii\.gz: not a whole NIfTI"):
            read_image(tmp_path / "broken.nii.gz")
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(saymask.InvalidArgument, match="one number a voxel"):
        read_image(nifti(nibabel.Nifti1Image(colour, np.eye(4))))
    with pytest.raises(saymask.InvalidArgument, match="plane: expected one of"):
        read_image(nifti(stored_as(ORIENTATIONS[0])), plane="oblique")


def test_without_nibabel_the_error_says_what_to_install(nifti, monkeypatch):
    path = nifti(nibabel.Nifti1Image(CANONICAL, CANONICAL_AFFINE))
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(saymask.MissingExtra, match=r"pip install 'nibabel"):
        read_image(path)
