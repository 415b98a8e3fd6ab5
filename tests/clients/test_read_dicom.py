import io
import warnings

import nibabel.testing
import numpy as np
import PIL.Image
import pydicom
import pytest
import saymask
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_voi, apply_windowing
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from saymask import read_image

FULL = (0, 255)


@pytest.fixture
def dicom(tmp_path):
    """Write a small grey image with the given elements; return its path."""

    def write(values, name="a.dcm", **elements):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = FileDataset(name, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        if values.ndim == 3:
            ds.NumberOfFrames = len(values)
        ds.Rows, ds.Columns = values.shape[-2:]
        ds.BitsAllocated = values.dtype.itemsize * 8
        ds.BitsStored = ds.BitsAllocated
        ds.HighBit = ds.BitsStored - 1
        ds.PixelRepresentation = int(values.dtype.kind == "i")
        ds.PixelData = values.tobytes()
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        ds.save_as(tmp_path / name)
        return tmp_path / name

    return write


def item(**elements):
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


RAMP = np.arange(-120, 120, dtype=np.int16).reshape(12, 20)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("center", "width"), [(40, 80), (-10.5, 33), (0, 2000)])
def test_windows_show_what_pydicom_computes(dicom, function, center, width):
    extra = {"VOILUTFunction": function} if function else {}
    path = dicom(
        RAMP,
        RescaleSlope=2,
        RescaleIntercept=-10,
        WindowCenter=[center, 1],
        WindowWidth=[width, 2],
        **extra,
    )
    ds = pydicom.dcmread(path)
    wide = apply_windowing(RAMP * 2.0 - 10, ds)
    low, high = -(2**15) * 2 - 10, (2**15 - 1) * 2 - 10  # pydicom's range of output
    truth = (wide - low) / (high - low) * 255
    source = read_image(path)
    np.testing.assert_allclose(source.pixels[:, :, 0], truth, atol=0.51)
    assert source.intensity.startswith(f"window center {center:g}, width {width:g}")


def test_the_narrowest_linear_window_is_a_threshold(dicom):
    pixels = read_image(dicom(RAMP, WindowCenter=10, WindowWidth=1)).pixels[:, :, 0]
    np.testing.assert_array_equal(pixels[RAMP < 9], 0)
    np.testing.assert_array_equal(pixels[RAMP > 10], 255)


def test_a_window_of_the_callers_counts_in_rescaled_values(dicom):
    path = dicom(RAMP, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=0, WindowWidth=5)
    pixels = read_image(path, window=(-100, 155)).pixels[:, :, 0]
    np.testing.assert_array_equal(pixels, np.clip(RAMP * 2 - 10 + 100, 0, 255))


def test_monochrome1_is_inverted(dicom):
    extra = {"WindowCenter": 0, "WindowWidth": 100}
    upright = read_image(dicom(RAMP, **extra)).pixels
    inverted = read_image(dicom(RAMP, PhotometricInterpretation="MONOCHROME1", **extra)).pixels
    np.testing.assert_array_equal(inverted, 255 - upright.astype(int))


def test_a_voi_lut_comes_before_a_window(dicom):
    lut = item(
        LUTDescriptor=[240, -120, 12],  # entries, first value mapped, bits
        LUTData=(np.arange(240, dtype=np.uint16) ** 2 % 4096).tobytes(),
    )
    path = dicom(RAMP, VOILUTSequence=[lut], WindowCenter=0, WindowWidth=9)
    truth = apply_voi(RAMP, pydicom.dcmread(path)) / 4095 * 255
    np.testing.assert_allclose(read_image(path).pixels[:, :, 0], truth, atol=0.51)


def test_without_a_window_padding_does_not_stretch_the_range(dicom):
    values = RAMP.copy()
    values[:, :5] = -2000
    source = read_image(dicom(values, PixelPaddingValue=-2000))
    assert source.pixels[:, 5:].min() < 5
    assert source.pixels[:, 5:].std() > 60


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_a_pixel_of_a_real_slice_lies_where_the_standard_puts_it(name):
    path = get_testdata_file(name)
    ds, source = pydicom.dcmread(path), read_image(path)
    assert source.pixels.shape == (ds.Rows, ds.Columns, 1)
    # PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, in LPS
    x, y = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    row, column = 10, 25
    lps = (
        np.array(ds.ImagePositionPatient, float)
        + x * ds.PixelSpacing[1] * column
        + y * ds.PixelSpacing[0] * row
    )
    np.testing.assert_allclose(source.geometry.world_ras(row, column), lps * (-1, -1, 1))
    assert source.spacing_mm == tuple(ds.PixelSpacing)
    assert source.geometry.shape == (ds.Columns, ds.Rows, 1)


def test_a_real_slice_lies_where_nibabel_puts_it():
    with warnings.catch_warnings(action="ignore"):  # nibabel calls its DICOM side experimental
        from nibabel.nicom import dicomwrappers
    path = get_testdata_file("MR_small.dcm")
    lps = dicomwrappers.wrapper_from_file(path).affine @ (3, 8, 0, 1)
    world = read_image(path).geometry.world_ras(3, 8)
    np.testing.assert_allclose(world, lps[:3] * (-1, -1, 1))


def test_a_mosaic_of_slices_has_no_one_place_in_the_patient():
    source = read_image(f"{nibabel.testing.data_path}/0.dcm")
    assert source.geometry is None
    assert source.spacing_mm is not None


def test_pixel_spacing_is_between_rows_first(dicom):
    path = dicom(
        RAMP,
        PixelSpacing=[3, 2],
        ImagePositionPatient=[1, 2, 3],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        SliceThickness=5,
    )
    source = read_image(path)
    assert source.spacing_mm == (3, 2)
    np.testing.assert_allclose(source.geometry.world_ras(4, 7), [-(1 + 14), -(2 + 12), 3])
    assert source.geometry.edge_letters() == ("R", "L", "A", "P")
    assert source.pixel_area_mm2 == pytest.approx(6)


def test_colour_of_an_ultrasound_is_what_pillow_makes_of_its_ybr():
    path = get_testdata_file("examples_ybr_color.dcm")
    ds = pydicom.dcmread(path)
    raw = pydicom.pixels.pixel_array(ds, index=3, raw=True)
    assert ds.PhotometricInterpretation.startswith("YBR")
    truth = np.asarray(PIL.Image.fromarray(raw, "YCbCr").convert("RGB"))
    source = read_image(path, frame_number=4)
    assert np.abs(source.pixels.astype(int) - truth).max() <= 2
    assert source.part == "frame4"
    assert source.description == f"frame 4 of {ds.NumberOfFrames}"
    assert source.geometry is None


def test_a_jpeg_in_dicom_has_the_colours_of_the_jpeg_alone():
    path = get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")
    ds = pydicom.dcmread(path)
    jpeg = next(pydicom.encaps.generate_frames(ds.PixelData))
    truth = np.asarray(PIL.Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    assert np.abs(read_image(path).pixels - truth).max() <= 2


def test_palette_colours_are_looked_up():
    path = get_testdata_file("examples_palette.dcm")
    ds = pydicom.dcmread(path)
    index = pydicom.pixels.pixel_array(ds, raw=True)
    tables = [
        np.frombuffer(ds[f"{name}PaletteColorLookupTableData"].value, "<u2")
        for name in ("Red", "Green", "Blue")
    ]
    first = ds.RedPaletteColorLookupTableDescriptor[1]
    assert ds.RedPaletteColorLookupTableDescriptor[2] == 16
    truth = np.stack([table[np.clip(index - first, 0, None)] for table in tables], -1) >> 8
    assert np.abs(read_image(path).pixels.astype(int) - truth).max() <= 1


def test_frames_of_an_enhanced_image_have_their_own_window_place_and_scale(dicom):
    values = np.stack([RAMP, RAMP])
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 10 * number])],
            FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=100)],
        )
        for number, center in ((0, 0), (1, 60))
    ]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[2, 2], SliceThickness=4)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])],
        PixelValueTransformationSequence=[
            item(RescaleSlope=2, RescaleIntercept=1, RescaleType="US")
        ],
    )
    path = dicom(
        values,
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
    )
    for number, center in ((1, 0), (2, 60)):
        source = read_image(path, frame_number=number)
        expected = ((RAMP * 2 + 1 - (center - 0.5)) / 99 + 0.5) * 255
        np.testing.assert_allclose(source.pixels[:, :, 0], np.clip(expected, 0, 255), atol=0.51)
        np.testing.assert_allclose(source.geometry.world_ras(0, 0), [0, 0, 10 * (number - 1)])
        np.testing.assert_allclose(
            source.geometry.world_ras(0, 1) - source.geometry.world_ras(0, 0), [0, -2, 0]
        )
        assert source.geometry.edge_letters() == ("A", "P", "S", "I")


def test_frames_that_are_not_there_and_files_without_a_picture_are_refused(dicom, tmp_path):
    for number in (0, 2):
        with pytest.raises(saymask.InvalidArgument, match=rf"frame {number}: .* has only 1"):
            read_image(dicom(RAMP), frame_number=number)
    with pytest.raises(saymask.InvalidArgument, match="no picture"):
        read_image(get_testdata_file("rtplan.dcm"))
    with pytest.raises(saymask.InvalidArgument, match=r"not a whole DICOM image|decoder"):
        read_image(get_testdata_file("MR_truncated.dcm"))
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"garbage")
    with pytest.raises(saymask.InvalidArgument):
        read_image(tmp_path / "b.dcm")
    with pytest.raises(saymask.InvalidArgument, match="plane"):
        read_image(dicom(RAMP), plane="axial")


def test_a_missing_decoder_is_named_with_what_to_install():
    with pytest.raises(saymask.InvalidArgument, match="pip install pylibjpeg"):
        read_image(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))


def test_without_pydicom_the_error_says_what_to_install(dicom, monkeypatch):
    path = dicom(RAMP)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(saymask.MissingExtra, match=r"pip install 'pydicom"):
        read_image(path)
