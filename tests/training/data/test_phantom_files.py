import nibabel as nib
import numpy as np
import pytest
import saymask

from training.data.phantom_files import main
from training.data.phantoms import LABELS, Z_RANGE_MM, draw_anatomy, render_slice, window


def test_the_client_reads_the_slice_that_was_rendered(tmp_path):
    assert main(["--seed", "5", "--spacing-mm", "20", "-o", str(tmp_path)]) == 0
    rendered = render_slice(draw_anatomy(5), Z_RANGE_MM[0] + 4 * 20)
    path = tmp_path / "phantom_5.nii.gz"
    source = saymask.read_image(path, slice_index=4, window=(-160, 240))
    np.testing.assert_allclose(
        source.pixels[..., 0].astype(int), window(rendered.hu).astype(int), atol=1
    )
    assert source.spacing_mm == pytest.approx((rendered.spacing_mm,) * 2, rel=1e-6)
    labels = np.asarray(nib.load(tmp_path / "phantom_5_labels.nii.gz").dataobj)
    np.testing.assert_array_equal(labels[:, :, 4].T, rendered.labels)


def test_the_liver_lies_on_the_right_of_the_body(tmp_path):
    main(["--seed", "5", "--spacing-mm", "20", "-o", str(tmp_path)])
    image = nib.load(tmp_path / "phantom_5_labels.nii.gz")
    voxels = np.argwhere(np.asarray(image.dataobj) == LABELS["liver"])
    x, y, _ = nib.affines.apply_affine(image.affine, voxels.mean(axis=0))
    assert x > 30  # RAS+: towards the right
    assert abs(y) < 60


def test_the_files_say_that_they_are_synthetic(tmp_path, capsys):
    main(["--seed", "1", "--missing", "spleen", "--spacing-mm", "40", "-o", str(tmp_path)])
    assert "synthetic, no patient's data; missing: spleen" in capsys.readouterr().out
    for path in tmp_path.iterdir():
        header = nib.load(path).header
        assert b"synthetic" in header["descrip"].item()
