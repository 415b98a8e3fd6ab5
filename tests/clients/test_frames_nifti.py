import nibabel
import numpy as np
import pytest
import saymask
from nibabel.orientations import apply_orientation, inv_ornt_aff
from saymask import read_frames, read_image

OBLIQUE = np.array([[0, -2.0, 0.1, 30], [1.5, 0.1, 0, -20], [0, 0.2, 5.0, 7], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).integers(0, 4000, (11, 13, 9)).astype(np.int16)


@pytest.fixture
def nifti(tmp_path):
    def write(values=VALUES, affine=OBLIQUE, name="v.nii.gz", header=lambda h: None):
        image = nibabel.Nifti1Image(values, affine)
        header(image.header)
        nibabel.save(image, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_frames_are_the_slices_that_read_image_shows_in_voxel_order(nifti, plane, flips):
    orientation = np.array(list(zip((2, 0, 1), flips, strict=True)))
    stored = apply_orientation(VALUES, orientation)
    path = nifti(stored, OBLIQUE @ inv_ornt_aff(orientation, VALUES.shape))
    frames = read_frames(path, plane=plane)
    pictures = list(frames)
    assert len(pictures) == frames.count
    for index, pixels in enumerate(pictures):
        single = read_image(path, plane=plane, slice_index=index)
        np.testing.assert_array_equal(pixels, single.pixels[:, :, 0])
        place = frames.geometry.of_frame(index)
        np.testing.assert_array_equal(place.pixel_to_voxel, single.geometry.pixel_to_voxel)
        assert frames.spacing_mm == single.spacing_mm
    assert frames.names[3] == f"{plane}{3:0{len(str(len(pictures) - 1))}d}"
    assert frames.intensity == single.intensity


def test_frames_can_be_read_again_from_the_middle_and_backwards(nifti):
    frames = read_frames(nifti(np.random.default_rng(1).integers(0, 99, (3, 4, 150), np.int16)))
    forwards = list(frames)
    assert frames.count == 150
    np.testing.assert_array_equal(list(frames.read_from(147)), forwards[147:])
    np.testing.assert_array_equal(list(frames.read_backwards_from(140)), forwards[140::-1])
    with pytest.raises(saymask.InvalidArgument, match=r"frame 150: .* 0\.\.149"):
        next(frames.read_from(150))


@pytest.mark.parametrize(
    ("spacing", "declared", "plane"),
    [
        ((1, 1, 5), None, "axial"),
        ((5, 1, 1), None, "sagittal"),
        ((1, 5, 1), None, "coronal"),
        ((1, 1, 1), None, "axial"),
        ((1, 1, 0.9), None, "axial"),  # a tie of the two widest says nothing
        ((1, 1, 5), 1, "coronal"),  # the header's word counts more
    ],
)
def test_the_scanners_slices_are_the_frames(nifti, spacing, declared, plane):
    path = nifti(
        affine=np.diag([*spacing, 1.0]), header=lambda header: header.set_dim_info(slice=declared)
    )
    assert read_frames(path).names[0] == f"{plane}{0:0{2 if plane != 'axial' else 1}d}"


def test_ct_is_shown_in_its_window_and_other_volumes_by_percentiles(nifti):
    hounsfield = VALUES - np.int16(1000)
    frames = read_frames(nifti(hounsfield), plane="axial")
    first = nibabel.as_closest_canonical(nibabel.Nifti1Image(hounsfield, OBLIQUE))
    expected = np.clip((first.get_fdata()[:, :, 0] + 160) * 255 / 400, 0, 255)
    np.testing.assert_allclose(next(iter(frames)), expected[::-1, ::-1].T, atol=0.51)
    assert frames.intensity == "-160..240 -> 0..255"
    assert "percentiles" in read_frames(nifti()).intensity
    assert read_frames(nifti(), window=(0, 50)).intensity == "0..50 -> 0..255"


def test_of_a_series_one_slice_runs_through_time_or_one_time_through_the_slices(nifti):
    series = np.random.default_rng(2).integers(0, 255, (6, 5, 4, 3)).astype(np.int16)
    series[0, 0, :, :] = 255
    path = nifti(series, np.diag([1.0, 1, 8, 1]), header=cine_header)
    with pytest.raises(saymask.InvalidArgument, match="4 slices at 3 times"):
        read_frames(path)
    with pytest.raises(saymask.InvalidArgument, match=r"slice 4: .* 0\.\.3"):
        read_frames(path, slice_index=4)
    cine = read_frames(path, slice_index=2, window=(0, 255))
    shown = np.stack(list(cine))
    np.testing.assert_array_equal(shown, series[::-1, ::-1, 2].transpose(2, 1, 0))
    assert (cine.count, cine.names, cine.geometry.times) == (3, ("frame1", "frame2", "frame3"), 3)
    assert cine.frames_per_second == pytest.approx(25)
    stack = read_frames(path, frame_number=2, window=(0, 255))
    np.testing.assert_array_equal(
        np.stack(list(stack)), series[::-1, ::-1, :, 1].transpose(2, 1, 0)
    )
    assert (stack.count, stack.geometry.times, stack.frames_per_second) == (4, 1, None)


def cine_header(header):
    header.set_xyzt_units("mm", "msec")
    header["pixdim"][4] = 40


def test_options_of_other_formats_are_refused(nifti, tmp_path):
    with pytest.raises(saymask.InvalidArgument, match="plane: expected one of"):
        read_frames(nifti(), plane="oblique")
    with pytest.raises(saymask.InvalidArgument, match="leave the series out"):
        read_frames(nifti(), series="1")
    with pytest.raises(saymask.InvalidArgument, match="low < high"):
        read_frames(nifti(), window=(3, 3))
    (tmp_path / "broken.nii").write_bytes(b"no volume")
    with pytest.raises(saymask.InvalidArgument, match="not a whole NIfTI"):
        read_frames(tmp_path / "broken.nii")
    with pytest.raises(saymask.InvalidArgument, match="no file or folder"):
        read_frames(tmp_path / "none.nii")
