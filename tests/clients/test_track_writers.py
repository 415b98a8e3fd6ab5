import json

import nibabel
import numpy as np
import PIL.Image
import pytest
import saymask
from nibabel.orientations import apply_orientation, inv_ornt_aff
from saymask import Track, TrackedFrame, read_frames, writers
from saymask.results import ModelInfo
from saymask.track_writers import track_report, write_track_nifti, write_track_pngs

AFFINE = np.array([[0, -2.0, 0.1, 30], [1.5, 0.1, 0, -20], [0, 0.2, 3.0, 7], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).permutation(11 * 13 * 9).reshape(11, 13, 9).astype(np.int16)


def track_where(frames, is_target):
    """The track of pixels that are shown in a way."""
    return Track(
        "q", (TrackedFrame(index, is_target(pixels), 0.5) for index, pixels in enumerate(frames))
    )


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_a_mask_marks_the_voxels_that_were_shown_under_it(tmp_path, plane, flips):
    orientation = np.array(list(zip((2, 0, 1), flips, strict=True)))
    stored = apply_orientation(VALUES, orientation)
    path = tmp_path / "v.nii"
    nibabel.save(
        nibabel.Nifti1Image(stored, AFFINE @ inv_ornt_aff(orientation, VALUES.shape)), path
    )
    frames = read_frames(path, plane=plane, window=(599, 600))  # black up to 599, white from 600
    write_track_nifti(
        tmp_path / "m.nii.gz", frames, track_where(frames, lambda pixels: pixels == 255)
    )
    written, truth = nibabel.load(tmp_path / "m.nii.gz"), nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), stored >= 600)
    np.testing.assert_array_equal(written.affine, truth.affine)
    assert written.get_data_dtype() == np.uint8
    assert nibabel.aff2axcodes(written.affine) == nibabel.aff2axcodes(truth.affine)


@pytest.mark.parametrize("unit", ["mm", "meter", "micron"])
def test_a_slice_through_time_becomes_a_series_of_the_sources_shape_and_units(tmp_path, unit):
    series = np.random.default_rng(1).permutation(6 * 5 * 4 * 3).reshape(6, 5, 4, 3)
    image = nibabel.Nifti1Image(series.astype(np.int16), AFFINE)
    image.header.set_xyzt_units(unit, "msec")
    image.header["pixdim"][4] = 40
    nibabel.save(image, tmp_path / "v.nii")
    frames = read_frames(tmp_path / "v.nii", plane="axial", slice_index=2, window=(99, 100))
    write_track_nifti(tmp_path / "m.nii", frames, track_where(frames, lambda pixels: pixels == 255))
    written, truth = nibabel.load(tmp_path / "m.nii"), nibabel.load(tmp_path / "v.nii")
    expected = np.zeros(series.shape, bool)
    expected[:, :, 2] = series[:, :, 2] >= 100
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
    np.testing.assert_allclose(written.affine, truth.affine, rtol=1e-6)
    assert written.header.get_xyzt_units() == (unit, "sec")
    assert written.header.get_zooms()[3] == pytest.approx(0.04)
    one_time = read_frames(tmp_path / "v.nii", plane="axial", frame_number=3, window=(99, 100))
    write_track_nifti(
        tmp_path / "n.nii", one_time, track_where(one_time, lambda pixels: pixels == 255)
    )
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(tmp_path / "n.nii").dataobj), series[..., 2] >= 100
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clip").mkdir()
    for number in (1, 2, 10):
        pixels = np.full((6, 9), number, np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "clip" / f"img_{number}.jpg")
    return tmp_path / "clip"


def test_pngs_have_the_names_of_their_frames_and_only_tracked_ones(folder, tmp_path):
    frames = read_frames(folder)
    masks = np.random.default_rng(0).random((3, 6, 9)) < 0.5
    track = Track("q", (TrackedFrame(index, masks[index], 1.0) for index in (2, 0)))
    written = write_track_pngs(tmp_path / "out" / "masks", frames, track)
    assert [path.name for path in written] == ["img_1.png", "img_10.png"]
    assert sorted((tmp_path / "out" / "masks").iterdir()) == sorted(written)
    for path, mask in zip(written, masks[[0, 2]], strict=True):
        picture = PIL.Image.open(path)
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), mask * np.uint8(255))
    with pytest.raises(saymask.InvalidArgument, match="write PNG"):
        write_track_nifti(tmp_path / "m.nii", frames, track)


def test_the_report_tells_of_every_frame_what_and_where(folder, tmp_path):
    mask, box = np.zeros((6, 9), bool), np.array([2, 1, 7.12345, 4], np.float32)
    mask[1:4, 2:7] = True
    track = Track("the valve")
    track.add(TrackedFrame(2, np.zeros_like(mask), 0.1))
    track.add(TrackedFrame(1, mask, 0.87654321, box))
    frames = read_frames(folder)
    report = track_report(
        frames, track, server="s 1", models=[ModelInfo("tpp", "3", "READY")], files={"a": "b"}
    )
    writers.write_json(tmp_path / "track.json", report)
    assert json.loads((tmp_path / "track.json").read_text(encoding="utf-8")) == report
    assert (report["schema"], report["prompt"]) == ("saymask.track/1", "the valve")
    assert report["models"] == [{"name": "tpp", "version": "3"}]
    assert report["source"]["file"] == "clip"
    assert report["source"]["frame_count"] == 3
    assert report["frames"] == [
        {
            "index": 1,
            "name": "img_2",
            "time_s": None,
            "first_pixel_ras_mm": None,
            "found": True,
            "score": 0.876543,
            "box_xyxy": [2, 1, 7.123, 4],
            "area_px": 15,
        },
        {
            "index": 2,
            "name": "img_10",
            "time_s": None,
            "first_pixel_ras_mm": None,
            "found": False,
            "score": 0.1,
            "box_xyxy": None,
            "area_px": 0,
        },
    ]


def test_the_report_of_a_volume_says_where_each_slice_lies(tmp_path):
    nibabel.save(nibabel.Nifti1Image(VALUES, np.diag([2.0, 3, 5, 1])), tmp_path / "v.nii")
    frames = read_frames(tmp_path / "v.nii")
    report = track_report(frames, track_where(frames, lambda pixels: pixels > 99))
    # The first pixel is the patient's right front corner, which is the last voxel of both axes.
    assert [frame["first_pixel_ras_mm"] for frame in report["frames"]] == [
        [20, 36, 5 * index] for index in range(9)
    ]
    assert report["frames"][4]["name"] == "axial4"
    assert report["source"]["part"] == "axial slices 0 to 8"
