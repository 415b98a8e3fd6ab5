import hashlib
import json

import nibabel
import numpy as np
import PIL.Image
import pytest
import saymask
from nibabel.orientations import apply_orientation, inv_ornt_aff
from pydicom.data import get_testdata_file
from saymask import read_image, writers
from saymask.overlay import draw_overlay
from saymask.results import ModelInfo, Segmentation

AFFINE = np.array([[0, -2.0, 0.1, 30], [1.5, 0.1, 0, -20], [0, 0.2, 3.0, 7], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).permutation(11 * 13 * 9).reshape(11, 13, 9).astype(np.int16)


def answer(mask, prompt="the left kidney", score=0.8):
    box = saymask.box_from_mask(mask)
    if box is None:
        box = np.zeros(4, np.float32)
    return Segmentation(prompt, mask, box, score, model_name="medisee", model_version="3")


def random_mask(source, seed=0):
    return np.random.default_rng(seed).random(source.pixels.shape[:2]) < 0.3


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "abdomen.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE), path)
    return path


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_a_nifti_mask_marks_the_voxels_whose_pixels_were_marked(tmp_path, plane, flips):
    orientation = np.array(list(zip((2, 0, 1), flips, strict=True)))
    stored = apply_orientation(VALUES, orientation)
    path = tmp_path / "v.nii"
    nibabel.save(
        nibabel.Nifti1Image(stored, AFFINE @ inv_ornt_aff(orientation, VALUES.shape)), path
    )
    source = read_image(path, plane=plane, slice_index=4, window=(0, VALUES.max()))
    mask = random_mask(source)
    writers.write_mask_nifti(tmp_path / "mask.nii.gz", answer(mask), source)
    written, truth = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(path)
    assert written.shape == truth.shape
    np.testing.assert_array_equal(written.affine, truth.affine)
    marked = np.asarray(written.dataobj)
    assert written.get_data_dtype() == np.uint8
    assert set(np.unique(marked)) == {0, 1}
    assert int(marked.sum()) == int(mask.sum())
    # Every value is one voxel's alone: what the picture showed under the mask is what is marked.
    shown = np.sort(source.pixels[:, :, 0][mask])
    scaled = np.rint(stored[marked > 0].astype(float) * 255 / VALUES.max())
    np.testing.assert_array_equal(np.sort(scaled), shown)
    rows, columns = np.nonzero(mask)
    centres = {
        tuple(np.round(source.geometry.world_ras(*rc), 3)) for rc in zip(rows, columns, strict=True)
    }
    voxels = np.argwhere(marked)
    world = nibabel.affines.apply_affine(written.affine, voxels)
    assert {tuple(np.round(point, 3)) for point in world} == centres


@pytest.mark.parametrize("unit", ["mm", "meter", "micron"])
def test_a_nifti_mask_has_the_unit_and_the_affine_of_its_source(tmp_path, unit):
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "v.nii")
    source = read_image(tmp_path / "v.nii")
    writers.write_mask_nifti(tmp_path / "m.nii", answer(random_mask(source)), source)
    written, truth = nibabel.load(tmp_path / "m.nii"), nibabel.load(tmp_path / "v.nii")
    assert written.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(written.affine, truth.affine, rtol=1e-6)
    again = read_image(tmp_path / "m.nii").spacing_mm
    np.testing.assert_allclose(again, source.spacing_mm, rtol=1e-6)


def test_a_mask_of_a_dicom_slice_is_one_slice_in_the_patient(tmp_path):
    source = read_image(get_testdata_file("CT_small.dcm"))
    mask = np.zeros(source.pixels.shape[:2], bool)
    mask[20, 33] = True
    writers.write_mask_nifti(tmp_path / "m.nii.gz", answer(mask), source)
    written = nibabel.load(tmp_path / "m.nii.gz")
    (voxel,) = np.argwhere(np.asarray(written.dataobj))
    assert tuple(voxel) == (33, 20, 0)
    np.testing.assert_allclose(
        nibabel.affines.apply_affine(written.affine, voxel),
        source.geometry.world_ras(20, 33),
        rtol=1e-5,
    )


def test_a_picture_without_a_place_has_no_nifti_mask(tmp_path):
    PIL.Image.new("L", (8, 6)).save(tmp_path / "a.png")
    source = read_image(tmp_path / "a.png")
    with pytest.raises(saymask.InvalidArgument, match="write PNG"):
        writers.write_mask_nifti(tmp_path / "m.nii", answer(random_mask(source)), source)


def test_a_png_mask_is_white_on_black_at_the_pictures_size(volume, tmp_path):
    mask = random_mask(read_image(volume))
    writers.write_mask_png(tmp_path / "m.png", answer(mask))
    written = PIL.Image.open(tmp_path / "m.png")
    assert written.mode == "L"
    np.testing.assert_array_equal(np.asarray(written), mask * np.uint8(255))


def test_the_report_says_what_was_asked_found_and_with_what(volume, tmp_path):
    source = read_image(volume, plane="coronal")
    mask = np.zeros(source.pixels.shape[:2], bool)
    mask[1:4, 2:7] = True
    models = [ModelInfo("medisee", "3", "READY"), ModelInfo("mllm", "1", "READY")]
    found = writers.report(
        answer(mask), source, server="s 1", models=models, files={"mask": "m.png"}
    )
    writers.write_json(tmp_path / "r.json", found)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == found
    assert found["schema"] == "saymask.report/1"
    assert found["server"] == "s 1"
    assert (found["prompt"], found["found"], found["score"]) == ("the left kidney", True, 0.8)
    assert found["box_xyxy"] == found["mask_box_xyxy"] == [2, 1, 7, 4]
    assert found["area_px"] == 15
    edges = AFFINE[:3, [1, 2]] if source.geometry.shape[0] == 11 else None
    assert edges is not None
    assert found["area_mm2"] == pytest.approx(
        15 * np.linalg.norm(np.cross(*source.geometry.pixel_edges_mm())), rel=1e-3
    )
    assert found["source"]["sha256"] == hashlib.sha256(volume.read_bytes()).hexdigest()
    assert found["source"]["file"] == "abdomen.nii.gz"
    assert found["models"] == [
        {"name": "medisee", "version": "3"},
        {"name": "mllm", "version": "1"},
    ]
    empty = writers.report(answer(np.zeros_like(mask), score=0.0), source)
    assert (empty["found"], empty["area_px"], empty["mask_box_xyxy"]) == (False, 0, None)


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("The left kidney?", "the_left_kidney"),
        ("  any  stone / in it ", "any_stone_in_it"),
        ("../../etc/passwd", "etc_passwd"),
        ("左肾", "左肾"),
        ("Größe", "größe"),
    ],
)
def test_a_prompt_becomes_a_plain_part_of_a_file_name(prompt, slug):
    assert writers.prompt_slug(prompt) == slug


def test_long_and_letterless_prompts_get_names_of_their_own():
    long = "where is the structure that relays sensory signals to the cortex"
    slugs = {
        writers.prompt_slug(prompt) for prompt in (long + " left", long + " right", "???", "!")
    }
    assert len(slugs) == 4
    assert all(0 < len(slug.encode()) <= 120 for slug in slugs)
    assert len(writers.prompt_slug("腎" * 500).encode()) <= 120


def overlay_of(pixels, mask, tmp_path, prompt="q"):
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    return np.asarray(draw_overlay(read_image(tmp_path / "a.png"), answer(mask, prompt)))


def test_an_overlay_enlarges_small_pictures_and_tints_the_mask_only(tmp_path):
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    drawn = overlay_of(np.full((64, 64), 100, np.uint8), mask, tmp_path).astype(int)
    assert drawn.shape[1] == 896
    assert drawn.shape[0] > 896  # the caption
    inside, outside = drawn[448, 448], drawn[60, 60]
    np.testing.assert_array_equal(outside, [100, 100, 100])
    assert inside[1] > inside[0] + 30
    edge = drawn[448, 224 : 224 + 12]  # the contour and the box meet at the mask's edge
    assert np.ptp(edge, axis=1).max() > 100


def test_the_line_of_the_box_does_not_hide_a_small_mask(tmp_path):
    mask = np.zeros((1400, 1400), bool)
    mask[700:702, 700:702] = True
    drawn = overlay_of(np.zeros((1400, 1400), np.uint8), mask, tmp_path)
    np.testing.assert_array_equal(drawn[700:702, 700:702], np.full((2, 2, 3), [0, 214, 190]))


def test_a_note_stands_under_the_picture(tmp_path):
    PIL.Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    source, nothing = read_image(tmp_path / "a.png"), answer(np.zeros((64, 64), bool))
    plain, noted = (draw_overlay(source, nothing, note) for note in ("", "demo weights"))
    assert (noted.width, noted.height) == (plain.width, plain.height + 25)
    assert np.ptp(np.asarray(noted)[plain.height - 22 : noted.height - 10]) > 100


def test_where_nothing_was_found_the_picture_is_left_alone(tmp_path):
    drawn = overlay_of(np.full((64, 64), 100, np.uint8), np.zeros((64, 64), bool), tmp_path)
    assert (drawn[:896] == 100).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 3), (2000, 1200)])
@pytest.mark.parametrize("prompt", ["x", "word " * 80, "w" * 300, "左肾在哪里"])
def test_any_size_and_question_can_be_drawn(tmp_path, size, prompt):
    drawn = overlay_of(np.zeros(size, np.uint8), np.ones(size, bool), tmp_path, prompt)
    assert max(drawn.shape[:2]) >= 896


def test_pixels_that_are_not_square_are_drawn_in_true_proportions(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((20, 20, 10), np.int16), np.diag([1.0, 1.0, 4.0, 1.0]))
    nibabel.save(image, tmp_path / "a.nii")
    source = read_image(tmp_path / "a.nii", plane="coronal")
    assert source.pixels.shape[:2] == (10, 20)
    drawn = draw_overlay(source, answer(np.zeros((10, 20), bool)))
    assert drawn.width == 448  # 20 mm wide, 40 mm high
    assert drawn.height > 896
