import pydicom
import pytest
from pydicom.data import get_testdata_file

from training.data.sequences.example_cine import read_example_cine


def test_the_film_is_read_with_its_scale_and_without_labels():
    cine = read_example_cine()
    ds = pydicom.dcmread(get_testdata_file("examples_ybr_color.dcm", download=False))
    assert (
        cine.frames.shape == (int(ds.NumberOfFrames), ds.Rows, ds.Columns, 3) == (30, 240, 320, 3)
    )
    assert cine.masks.shape == (30, 0, 240, 320)
    assert cine.modality == "ultrasound"
    assert ds.SequenceOfUltrasoundRegions[0].PhysicalUnitsXDirection == 3  # centimetres
    assert 0.3 < cine.pixel_spacing_mm[0] < 0.8
    # A grey picture in RGB: it would be green or pink if its YBR had not been converted.
    assert abs(cine.frames[..., 0].mean() - cine.frames[..., 2].mean()) < 5


def test_an_installation_without_the_file_is_named(monkeypatch):
    monkeypatch.setattr(
        "training.data.sequences.example_cine.get_testdata_file", lambda name, download: None
    )
    with pytest.raises(FileNotFoundError, match="pip install pydicom"):
        read_example_cine()
