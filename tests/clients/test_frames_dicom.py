import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import saymask
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from saymask import Track, TrackedFrame, read_frames, read_image
from saymask.track_writers import write_track_nifti

OBLIQUE = [0.8, 0.6, 0, -0.36, 0.48, 0.8]  # two unit vectors at right angles
SIZE_HW = (5, 7)


def save(path, values, **elements):
    """Write a grey image, (H, W) or (frames, H, W), with the given elements."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    if values.ndim == 3:
        ds.NumberOfFrames = len(values)
    ds.Rows, ds.Columns = values.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.PixelData = values.astype(np.int16).tobytes()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.save_as(path)


def item(**elements):
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def save_series(folder, count=6, *, times=1, step_mm=4.0, tilt_mm=0.0, uid="1.2.3", **elements):
    """Write a stack whose slice n, at time t, holds 100 n + 10 t, under names that mislead."""
    folder.mkdir(exist_ok=True)
    across = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    for number in range(count):
        position = (
            [10, -20, 30] + across * step_mm * number + np.array(OBLIQUE[3:]) * tilt_mm * number
        )
        for time in range(times):
            save(
                folder / f"{uid}.{(number * 7 + 3) % 50}.{time}",
                np.full(SIZE_HW, 100 * number + 10 * time),
                **{
                    "SeriesInstanceUID": uid,
                    "InstanceNumber": 50 * time - number + 20,
                    "ImagePositionPatient": [round(float(mm), 6) for mm in position],
                    "ImageOrientationPatient": OBLIQUE,
                    "PixelSpacing": [2, 3],
                    "SliceThickness": 1,
                    "Modality": "MR",
                    "WindowCenter": 500,
                    "WindowWidth": 1001,
                    **elements,
                },
            )
    return folder


def grey_of(value):
    return value * 255 / 1000  # of the window in `save_series`


def within_rounding(greys):
    return pytest.approx(greys, abs=0.51)


def test_slices_follow_where_they_lie_whatever_their_names_and_numbers(tmp_path):
    frames = read_frames(save_series(tmp_path / "s"))
    assert [int(pixels[0, 0]) for pixels in frames] == within_rounding(
        [grey_of(100 * n) for n in range(6)]
    )
    assert (frames.kind, frames.count, frames.size_hw) == ("dicom", 6, SIZE_HW)
    assert (frames.spacing_mm, frames.frames_per_second) == ((2, 3), None)
    assert frames.names[1] == "1.2.3.10.0"  # a dot is part of the name
    assert frames.intensity == "window center 500, width 1001 -> 0..255"
    np.testing.assert_array_equal(next(frames.read_from(4)), np.full(SIZE_HW, 102))


@pytest.mark.parametrize("tilt_mm", [0.0, 1.5])
def test_a_mask_of_a_series_lies_where_the_standard_puts_its_pixels(tmp_path, tilt_mm):
    folder = save_series(tmp_path / "s", tilt_mm=tilt_mm)
    frames = read_frames(folder)
    marked = [(0, 1, 2), (3, 4, 6), (5, 0, 0)]  # frame, row, column
    track = Track("q")
    for index in range(6):
        mask = np.zeros(SIZE_HW, bool)
        for frame, row, column in marked:
            mask[row, column] |= frame == index
        track.add(TrackedFrame(index, mask, 1.0))
    write_track_nifti(tmp_path / "m.nii.gz", frames, track)
    written = nibabel.load(tmp_path / "m.nii.gz")
    voxels = np.argwhere(np.asarray(written.dataobj))
    world = nibabel.affines.apply_affine(written.affine, voxels)
    expected = []
    for frame, row, column in marked:
        ds = pydicom.dcmread(folder / frames.names[frame])
        # PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, in LPS
        along_row, along_column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        lps = np.array(ds.ImagePositionPatient, float)
        lps = (
            lps + along_row * ds.PixelSpacing[1] * column + along_column * ds.PixelSpacing[0] * row
        )
        expected.append(lps * (-1, -1, 1))
    by_place = np.lexsort(np.round(world, 2).T), np.lexsort(np.round(expected, 2).T)
    np.testing.assert_allclose(world[by_place[0]], np.array(expected)[by_place[1]], atol=1e-4)


def test_several_series_in_a_folder_are_named_and_one_can_be_chosen(tmp_path):
    folder = save_series(tmp_path / "s", SeriesNumber=3, SeriesDescription="T1")
    save_series(folder, 2, uid="1.2.4", SeriesNumber=4, Rows=5)
    save(folder / "report", np.zeros(SIZE_HW))
    ds = pydicom.dcmread(folder / "report")
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(ds, keyword)
    ds.save_as(folder / "report")
    with pytest.raises(saymask.InvalidArgument) as told:
        read_frames(folder)
    assert "holds 2 DICOM series" in str(told.value)
    assert "series 3 (T1), MR, 6 frames, SeriesInstanceUID 1.2.3\n" in str(told.value)
    assert read_frames(folder, series="4").count == 2
    assert read_frames(folder, series="1.2.3").count == 6
    with pytest.raises(saymask.InvalidArgument, match=r"0 of the series in s have .* '9'"):
        read_frames(folder, series="9")


def test_places_seen_at_several_times_are_gone_through_in_space_or_in_time(tmp_path):
    folder = save_series(tmp_path / "s", 3, times=4, FrameTime=40)
    with pytest.raises(saymask.InvalidArgument, match="3 slices at 4 times"):
        read_frames(folder)
    cine = read_frames(folder, slice_index=1)
    assert [int(pixels[0, 0]) for pixels in cine] == within_rounding(
        [grey_of(100 + 10 * t) for t in range(4)]
    )
    assert (cine.frames_per_second, cine.geometry.times) == (25, 4)
    stack = read_frames(folder, frame_number=3)
    assert [int(pixels[0, 0]) for pixels in stack] == within_rounding(
        [grey_of(100 * n + 20) for n in range(3)]
    )
    assert (stack.frames_per_second, stack.geometry.first.shape) == (None, (7, 5, 3))


def test_frames_have_one_window_though_files_name_several(tmp_path):
    folder = save_series(tmp_path / "s", 3)
    for number, file in enumerate(sorted(folder.iterdir())):
        ds = pydicom.dcmread(file)
        ds.WindowCenter = 100 * number
        ds.save_as(file)
    frames = read_frames(folder)
    assert "percentiles 0.5 and 99.5" in frames.intensity
    assert [int(pixels[0, 0]) for pixels in frames] == within_rounding([0, 127.5, 255])
    fixed = read_frames(folder, window=(0, 255))
    assert [int(pixels[0, 0]) for pixels in fixed] == [0, 100, 200]
    assert fixed.intensity == "0..255 -> 0..255"


def test_ct_is_shown_in_its_window_whatever_the_files_say(tmp_path):
    folder = save_series(tmp_path / "s", 3, Modality="CT")
    assert [int(pixels[0, 0]) for pixels in read_frames(folder)] == within_rounding(
        [102, 165.75, 229.5]
    )
    own = read_frames(folder, ct_window=None)
    assert own.intensity.startswith("window center 500")


def test_the_ultrasound_that_pydicom_carries_is_thirty_frames_in_colour():
    path = get_testdata_file("examples_ybr_color.dcm")
    frames = read_frames(path)
    pictures = list(frames)
    ds = pydicom.dcmread(path)
    for number in (1, 4, 30):
        raw = pydicom.pixels.pixel_array(ds, index=number - 1, raw=True)
        truth = np.asarray(PIL.Image.fromarray(raw, "YCbCr").convert("RGB")).astype(int)
        assert np.abs(pictures[number - 1] - truth).max() <= 2
        np.testing.assert_array_equal(
            pictures[number - 1], read_image(path, frame_number=number).pixels
        )
    assert (frames.count, len(pictures), frames.size_hw) == (30, 30, (240, 320))
    assert frames.frames_per_second == pytest.approx(1000 / 33.333)
    assert (frames.names[0], frames.geometry) == ("frame01", None)
    with pytest.raises(saymask.InvalidArgument, match="colour image; leave the window out"):
        read_frames(path, window=(0, 9))


def test_frames_in_rgb_and_grey_frames_of_one_file_are_read():
    path = get_testdata_file("SC_rgb_rle_2frame.dcm")
    truth = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(list(read_frames(path)), truth)
    dose = read_frames(get_testdata_file("rtdose.dcm"))
    stored = pydicom.dcmread(get_testdata_file("rtdose.dcm")).pixel_array.astype(float)
    assert (dose.count, dose.size_hw, dose.geometry) == (15, (10, 10), None)
    ranks = np.corrcoef(np.stack(list(dose)).ravel(), stored.ravel())
    assert ranks[0, 1] > 0.99


def test_frames_of_an_enhanced_file_are_slices_in_the_order_they_lie(tmp_path):
    order = [2, 0, 3, 1]
    groups = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 6 * place])])
        for place in order
    ]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[2, 3], SliceThickness=4)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    values = np.stack([np.full(SIZE_HW, 10 * place) for place in order])
    save(
        tmp_path / "e.dcm",
        values,
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=[shared],
    )
    frames = read_frames(tmp_path / "e.dcm", window=(0, 255))
    assert [int(pixels[0, 0]) for pixels in frames] == [0, 10, 20, 30]
    assert frames.names == ("frame2", "frame4", "frame1", "frame3")
    expected = np.diag([-3.0, -2, 6, 1])
    np.testing.assert_allclose(frames.geometry.first.affine_ras, expected)


def test_folders_that_are_no_one_sequence_are_refused(tmp_path):
    gap = save_series(tmp_path / "gap")
    (gap / read_frames(gap).names[2]).unlink()
    with pytest.raises(saymask.InvalidArgument, match="4 to 8 mm apart, the most after slice 1 of"):
        read_frames(gap)
    sizes = save_series(tmp_path / "sizes")
    save(sizes / "b.dcm", np.zeros((9, 9)), SeriesInstanceUID="1.2.3")
    with pytest.raises(saymask.InvalidArgument, match=r"different sizes \(.*9 x 9: b.dcm"):
        read_frames(sizes)
    turned = save_series(tmp_path / "turned", 9)
    save_series(turned, 3, ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    with pytest.raises(saymask.InvalidArgument, match="slices of several directions"):
        read_frames(turned)
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.dcm", "b.dcm"):
        save(clips / name, np.zeros((2, *SIZE_HW)), SeriesInstanceUID="1.2.3")
    with pytest.raises(saymask.InvalidArgument, match=r"2 multi-frame files \(a.dcm, b.dcm\)"):
        read_frames(clips)
    stills = tmp_path / "stills"
    stills.mkdir()
    for name in ("a.dcm", "b.dcm"):
        save(stills / name, np.zeros(SIZE_HW), SeriesInstanceUID="1.2.3", InstanceNumber=1)
    with pytest.raises(saymask.InvalidArgument, match="their order is unknown"):
        read_frames(stills)
    PIL.Image.new("L", (7, 5)).save(clips / "c.png")
    with pytest.raises(saymask.InvalidArgument, match="2 DICOM files and 1 pictures"):
        read_frames(clips)


def test_files_without_pictures_and_broken_ones_are_refused(tmp_path):
    with pytest.raises(saymask.InvalidArgument, match="holds a picture"):
        read_frames(get_testdata_file("rtplan.dcm"))
    with pytest.raises(saymask.InvalidArgument, match="pip install pylibjpeg"):
        read_frames(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"garbage")
    with pytest.raises(saymask.InvalidArgument):
        read_frames(tmp_path / "b.dcm")
    save(tmp_path / "a.dcm", np.zeros((3, *SIZE_HW)))
    with pytest.raises(saymask.InvalidArgument, match="leave the plane out"):
        read_frames(tmp_path / "a.dcm", plane="axial")
    with pytest.raises(saymask.InvalidArgument, match="leave the series out"):
        read_frames(tmp_path / "a.dcm", series="1")


def test_without_pydicom_the_error_says_what_to_install(tmp_path, monkeypatch):
    folder = save_series(tmp_path / "s", 1)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(saymask.MissingExtra, match=r"pip install 'pydicom"):
        read_frames(folder)
