import asyncio
import inspect
import json
import math

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import saymask
from pydicom.data import get_testdata_file
from saymask.cli import main

pytestmark = pytest.mark.server

IMAGE = np.zeros((30, 21), np.uint8)
IMAGE[3:9, 2:7] = 200
HU = np.array([-1000, -160, -60, 41, 140, 240, 1000])
SHOWN = [0, 0, 64, 128, 191, 255, 255]
"""The same at level 40, width 400: (HU + 160) / 400 * 255, rounded."""


@pytest.fixture
def at_server(server_url, tmp_path, monkeypatch):
    monkeypatch.setenv("SAYMASK_SERVER_URL", server_url)
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(IMAGE).save("ct.png")


def test_every_organ_of_a_question_has_a_finding_of_its_own(client):
    prompt = "found right kidney and absent liver and irrelevant and uncertain liver"
    kidney, liver, nonsense, unsure = client.find_organs(IMAGE, prompt)
    assert [f.question for f in (kidney, liver, nonsense, unsure)] == prompt.split(" and ")
    assert (kidney.outcome, kidney.label, kidney.found) == ("found", "right kidney", True)
    assert (kidney.snomed_code, kidney.laterality_code) == ("64033007", "24028007")
    np.testing.assert_array_equal(kidney.mask, IMAGE > 127)
    np.testing.assert_array_equal(kidney.box_xyxy, np.float32([-1.5, 2.25, 30, 40]))
    assert (kidney.score, kidney.presence, kidney.answer) == (0.75, 0.875, "It is found.")
    assert (liver.outcome, liver.label, liver.snomed_code) == ("absent", "liver", "10200004")
    assert liver.laterality_code is None
    assert (nonsense.outcome, nonsense.label, nonsense.snomed_code) == ("irrelevant", None, None)
    assert (unsure.outcome, unsure.label) == ("uncertain", "liver")
    for refused in (liver, nonsense, unsure):
        assert refused.mask.shape == IMAGE.shape
        assert not refused.mask.any()
        assert refused.box_xyxy is None
        assert (refused.score, refused.found) == (0, False)
    for finding in (kidney, liver, nonsense, unsure):
        assert finding.similarities.tolist() == [0.5, 0.25, -0.125]
        assert (finding.cache_version, finding.model_name) == ("c0ffee", "organseg")
        assert finding.timings_ms["total"] >= finding.timings_ms["round_trip"] > 0
        assert finding.request_id
        assert not finding.mask.flags.writeable
    assert "label='right kidney', snomed_code='64033007'" in repr(kidney)


def test_the_least_margin_is_sent_only_where_it_is_given(client):
    assert client.find_organs(IMAGE, "found liver")[0].margin == -1
    assert client.find_organs(IMAGE, "found liver", least_margin=0.25)[0].margin == 0.25
    assert client.find_organs(IMAGE, "found liver", least_margin=0)[0].margin == 0
    for wrong in (-0.1, 2.5, math.nan, "0.1"):
        with pytest.raises(saymask.InvalidArgument, match="least_margin: expected a number"):
            client.find_organs(IMAGE, "found liver", least_margin=wrong)


def test_the_asyncio_client_finds_the_same(server_url, client):
    async def ask():
        async with saymask.aio.Client(server_url) as twin:
            return await twin.find_organs(IMAGE, "found liver and absent", least_margin=0.5)

    expected = client.find_organs(IMAGE, "found liver and absent", least_margin=0.5)
    for one, other in zip(asyncio.run(ask()), expected, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        assert (one.outcome, one.margin, one.label) == (other.outcome, other.margin, other.label)
        assert set(one.timings_ms) == set(other.timings_ms)
    blocking, twin = saymask.Client.find_organs, saymask.aio.Client.find_organs
    assert str(inspect.signature(blocking)) == str(inspect.signature(twin))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARG", saymask.InvalidArgument),
        ("UNAVAILABLE", saymask.Unavailable),
        ("INTERNAL", saymask.ServerError),
    ],
)
def test_what_the_server_answers_keeps_its_kind(server_url, code, kind):
    with (
        saymask.Client(server_url, retries=0) as client,
        pytest.raises(kind, match="asked for it"),
    ):
        client.find_organs(IMAGE, f"fail {code}")


def test_an_answer_outside_the_protocol_is_told(client):
    with pytest.raises(saymask.ServerError, match="not equally many"):
        client.find_organs(IMAGE, "found liver and short")


def volume(values, path="ct.nii"):
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.eye(4)), path)
    return path


def ct(path="ct.dcm", modality="CT", window=None):
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    stored = np.zeros((ds.Rows, ds.Columns), np.int16)
    stored[0, : len(HU)] = (HU - ds.RescaleIntercept) / ds.RescaleSlope
    ds.PixelData, ds.Modality = stored.tobytes(), modality
    for keyword in ("WindowCenter", "WindowWidth", "PixelPaddingValue"):
        ds.pop(keyword, None)
    if window:
        ds.WindowCenter, ds.WindowWidth = window
    ds.save_as(path)
    return path


def test_ct_is_shown_in_the_soft_tissue_window_whatever_its_file_says(tmp_path):
    soft_tissue = saymask.windowing.SOFT_TISSUE_HU
    nifti = volume(np.tile(HU[:, None, None], (1, 5, 3)), tmp_path / "ct.nii")
    for path in (nifti, ct(tmp_path / "a.dcm"), ct(tmp_path / "b.dcm", window=(-600, 1500))):
        source = saymask.read_image(path, ct_window=soft_tissue)
        # The volume's first axis runs to the patient's right, at the picture's left.
        row = source.pixels[0, :, 0][::-1] if source.kind == "nifti" else source.pixels[0, :, 0]
        assert row[: len(HU)].tolist() == SHOWN
        assert source.intensity == "-160..240 -> 0..255"
        chosen = saymask.read_image(path, window=(-1000, 1000), ct_window=soft_tissue)
        assert chosen.intensity == "-1000..1000 -> 0..255"


def test_what_is_no_ct_is_shown_as_ever(tmp_path):
    soft_tissue = saymask.windowing.SOFT_TISSUE_HU
    for path in (
        volume(np.arange(60).reshape(4, 5, 3), tmp_path / "mr.nii"),
        ct(tmp_path / "mr.dcm", modality="MR", window=(50, 100)),
    ):
        shown = saymask.read_image(path, ct_window=soft_tissue)
        np.testing.assert_array_equal(shown.pixels, saymask.read_image(path).pixels)


def test_a_path_of_ct_is_asked_about_in_the_soft_tissue_window(client, tmp_path):
    path = ct(tmp_path / "ct.dcm", window=(-600, 1500))
    (finding,) = client.find_organs(path, "found liver")
    shown = saymask.read_image(path, window=(-160, 240)).pixels[:, :, 0]
    np.testing.assert_array_equal(finding.mask, shown > 127)
    assert 0 < finding.mask.sum() < (client.segment(path, "bright").mask.sum())


def test_the_command_writes_mask_overlay_and_report_of_every_organ(at_server, tmp_path, capsys):
    assert main(["organs", "ct.png", "found right kidney and absent liver", "-o", "out"]) == 0
    said = capsys.readouterr().out
    out = tmp_path / "out"
    assert len(list(out.iterdir())) == 6
    mask = np.asarray(PIL.Image.open(out / "ct_found_right_kidney_mask.png"))
    np.testing.assert_array_equal(mask > 0, IMAGE > 127)
    assert not np.asarray(PIL.Image.open(out / "ct_absent_liver_mask.png")).any()
    report = json.loads((out / "ct_found_right_kidney.json").read_text())
    assert report["schema"] == "saymask.report/1"
    assert (report["label"], report["outcome"]) == ("right kidney", "found")
    assert (report["snomed_ct"], report["snomed_ct_laterality"]) == ("64033007", "24028007")
    assert (report["found"], report["area_px"], report["cache_version"]) == (True, 30, "c0ffee")
    assert report["box_xyxy"] == [-1.5, 2.25, 30, 40]
    absent = json.loads((out / "ct_absent_liver.json").read_text())
    assert (absent["found"], absent["box_xyxy"], absent["answer"]) == (False, None, "It is absent.")
    for text in (
        "“found right kidney”\n  answer   It is found.",
        "organ    right kidney, SNOMED CT 64033007:24028007",
        "found    30 px",
        "“absent liver”\n  answer   It is absent.",
        "not for clinical use",
    ):
        assert text in said


def test_a_refusal_is_exit_code_3_with_its_reason(at_server, capsys):
    assert main(["organs", "ct.png", "irrelevant", "-p", "absent liver"]) == 3
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "“irrelevant”\n  answer   It is irrelevant." in captured.out
    assert "found    " not in captured.out
    assert main(["organs", "ct.png", "absent liver", "-q"]) == 3
    assert capsys.readouterr() == ("", "")


def test_json_is_one_document(at_server, capsys):
    assert main(["organs", "ct.png", "found liver and irrelevant", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["outcome"] for result in results] == ["found", "irrelevant"]
    assert results[1]["label"] is None


def test_a_mask_of_a_volume_lies_in_its_space(at_server, tmp_path):
    values = np.full((12, 14, 10), -500)
    values[2:5, 3:9, 4:6] = 200
    volume(values, "body.nii")
    arguments = ["organs", "body.nii", "found liver", "--mask", "nifti", "--slice", "4", "-q"]
    assert main(arguments) == 0
    written = nibabel.load(tmp_path / "saymask_out" / "body_axial4_found_liver.nii.gz")
    expected = values > 100
    expected[:, :, [z for z in range(10) if z != 4]] = False
    np.testing.assert_array_equal(np.asarray(written.dataobj) > 0, expected)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ct.png"], 'saymask organs IMAGE "the liver"'),
        (["ct.png", "x", "--least-margin", "3"], "error: --least-margin: expected"),
        (["nowhere.png", "x"], "there is no file nowhere.png"),
        (["ct.png", "x", "--mask", "nifti"], "use --mask png"),
    ],
)
def test_a_wrong_command_is_one_line_on_stderr_and_exit_code_2(at_server, capsys, arguments, text):
    assert main(["organs", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("saymask: error: ")
    assert captured.err.count("\n") == 1
    assert text in captured.err
