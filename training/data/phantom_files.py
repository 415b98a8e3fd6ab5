"""Command: write one synthetic abdomen as NIfTI, attenuation and labels.

`python -m training.data.phantom_files --seed 3 -o out/` writes `phantom_3.nii.gz` (int16, HU) and
`phantom_3_labels.nii.gz` (uint8; 1 to 13 as in FLARE22).
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

from training.data.phantoms import LABELS, Z_RANGE_MM, Anatomy, draw_anatomy, render_slice

DESCRIPTION = b"synthetic CT phantom, no patient's data"
"""Stands in the header of both files."""


def main(argv: list[str] | None = None) -> int:
    """Write the two files and print their names."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.phantom_files", description=__doc__
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--missing", action="append", choices=list(LABELS), help="repeatable; default: drawn"
    )
    parser.add_argument("--spacing-mm", type=float, default=3.0, help="between slices")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    arguments = parser.parse_args(argv)
    anatomy = draw_anatomy(arguments.seed, arguments.missing)
    arguments.output.mkdir(parents=True, exist_ok=True)
    hu, labels = phantom_images(anatomy, arguments.spacing_mm)
    for name, image in {"": hu, "_labels": labels}.items():
        path = arguments.output / f"phantom_{arguments.seed}{name}.nii.gz"
        nib.save(image, path)
        print(path)
    print(f"synthetic, no patient's data; missing: {', '.join(anatomy.missing) or 'nothing'}")
    return 0


def phantom_images(anatomy: Anatomy, slice_spacing_mm: float) -> tuple[nib.Nifti1Image, ...]:
    """Render the whole abdomen.

    Args:
        anatomy: The body.
        slice_spacing_mm: Between slices, along z.

    Returns:
        Attenuation (int16, HU) and labels (uint8), both (columns, rows, slices) with the affine of
        the body's frame in RAS+ mm.
    """
    slices = [render_slice(anatomy, z) for z in np.arange(*Z_RANGE_MM, slice_spacing_mm)]
    # Columns run to the patient's left and rows to the back: both against RAS+.
    steps = np.array([-slices[0].spacing_mm, -slices[0].spacing_mm, slice_spacing_mm])
    rows, columns = slices[0].hu.shape
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = -steps * [(columns - 1) / 2, (rows - 1) / 2, 0] + [0, 0, Z_RANGE_MM[0]]
    images = []
    for planes, dtype in (
        ([s.hu for s in slices], np.int16),
        ([s.labels for s in slices], np.uint8),
    ):
        image = nib.Nifti1Image(
            np.stack(planes, axis=-1).round().astype(dtype).swapaxes(0, 1), affine
        )
        image.header["descrip"] = DESCRIPTION
        image.header.set_xyzt_units("mm")
        images.append(image)
    return tuple(images)


if __name__ == "__main__":
    raise SystemExit(main())
