"""Writes an answer to files: the mask as PNG or NIfTI, the overlay, the JSON report.

The report's fields are documented in docs/client.md. Drawing is in `overlay`.
"""

import hashlib
import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

import saymask
from saymask.errors import InvalidArgument, MissingExtra
from saymask.organs import OrganFinding
from saymask.overlay import draw_overlay
from saymask.results import ModelInfo, Segmentation, box_from_mask
from saymask.source_image import MM_PER_UNIT, Geometry, SourceImage

__all__ = [
    "REPORT_SCHEMA",
    "organ_details",
    "prompt_slug",
    "report",
    "write_json",
    "write_mask_nifti",
    "write_mask_png",
    "write_overlay",
]

REPORT_SCHEMA = "saymask.report/1"
"""Name and version of the report's fields."""

_SLUG_LETTERS = 48


def prompt_slug(prompt: str) -> str:
    """Return a prompt as a part of a file name: letters and digits in any script, and `_`.

    A prompt that is cut short, or has no letter, ends in a few digits of its SHA-256, so that two
    long prompts with one beginning keep apart. Letters the file system cannot write are left out.
    """
    encoding = sys.getfilesystemencoding()  # ASCII in the C locale
    writable = prompt.encode(encoding, errors="ignore").decode(encoding)
    letters = unicodedata.normalize("NFKC", writable).lower()
    slug = "_".join("".join(c if c.isalnum() else " " for c in letters).split())
    if (
        writable == prompt
        and 0 < len(slug) <= _SLUG_LETTERS
        and len(slug.encode()) <= 2 * _SLUG_LETTERS
    ):
        return slug
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    start = slug.encode()[:_SLUG_LETTERS].decode(errors="ignore").rstrip("_")
    return f"{start}_{digest}" if start else digest


def write_mask_png(path: Path, segmentation: Segmentation) -> None:
    """Write the mask as an 8-bit grey PNG of the picture's size: 255 is the target, 0 the rest."""
    PIL.Image.fromarray(segmentation.mask.astype(np.uint8) * 255).save(path, format="PNG")


def write_mask_nifti(path: Path, segmentation: Segmentation, source: SourceImage) -> None:
    """Write the mask as a NIfTI volume of the source's shape and affine: 1 in the slice, else 0.

    Raises:
        InvalidArgument: if the source has no place in a volume.
        MissingExtra: if nibabel is not installed.
    """
    geometry = source.geometry
    if geometry is None:
        raise InvalidArgument(
            f"{source.path.name} does not say where its pixels lie in the patient, so its mask "
            "cannot be NIfTI; write PNG"
        )
    volume = np.zeros(geometry.shape, np.uint8)
    volume[tuple(geometry.voxels_of(*np.nonzero(segmentation.mask)))] = 1
    save_nifti(path, volume, geometry)


def save_nifti(
    path: Path, volume: NDArray[np.uint8], geometry: Geometry, time_step_s: float | None = None
) -> None:
    """Write a label map as a NIfTI file with the affine and the unit of its source.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        volume: (i, j, k), or (i, j, k, t).
        geometry: of the source; `pixel_to_voxel` is not used.
        time_step_s: seconds between volumes, where there are several and it is known.

    Raises:
        MissingExtra: if nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("writing NIfTI needs nibabel: pip install 'nibabel>=5.2'") from error
    # The source's own numbers: many tools lay a mask over its volume without looking at units.
    affine_ras = geometry.affine_ras.copy()
    affine_ras[:3] /= MM_PER_UNIT[geometry.file_unit]
    image = nibabel.Nifti1Image(volume, affine_ras)
    image.header.set_xyzt_units(geometry.file_unit, None if time_step_s is None else "sec")
    if time_step_s is not None:
        image.header["pixdim"][4] = time_step_s
    nibabel.save(image, path)


def write_overlay(
    path: Path, segmentation: Segmentation, source: SourceImage, note: str = ""
) -> None:
    """Write the picture with the answer drawn on it, and the note under it, as PNG."""
    draw_overlay(source, segmentation, note).save(path, format="PNG")


def report(
    segmentation: Segmentation,
    source: SourceImage,
    *,
    server: str | None = None,
    models: Iterable[ModelInfo] = (),
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the report of one answer, ready for JSON.

    Args:
        segmentation: the answer, on the picture's pixel grid.
        source: the picture that was asked about.
        server: name and version of the server, as `Health.server`; None where unknown.
        models: models of the server, of which names and versions are kept.
        files: names of the files written, by what they hold.
    """
    area_px = int(segmentation.mask.sum())
    area_mm2 = source.pixel_area_mm2
    mask_box = box_from_mask(segmentation.mask)
    names = {(model.name, model.version) for model in models}
    names.add((segmentation.model_name, segmentation.model_version))
    return {
        "schema": REPORT_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompt": segmentation.prompt,
        "found": segmentation.found,
        "box_xyxy": _rounded(segmentation.box_xyxy),
        "mask_box_xyxy": None if mask_box is None else _rounded(mask_box),
        "score": round(segmentation.score, 6),
        "label": segmentation.label,
        "area_px": area_px,
        "area_mm2": None if area_mm2 is None else round(area_px * area_mm2, 3),
        "explanation": segmentation.explanation,
        "source": {
            "file": source.path.name,
            "sha256": source.sha256,
            "kind": source.kind,
            "part": source.description or None,
            "size_hw": list(source.pixels.shape[:2]),
            "spacing_mm": None if source.spacing_mm is None else _rounded(source.spacing_mm),
            "intensity": source.intensity or None,
        },
        "server": server,
        "models": [{"name": name, "version": version} for name, version in sorted(names)],
        "request_id": segmentation.request_id,
        "timings_ms": {name: round(ms, 3) for name, ms in segmentation.timings_ms.items()},
        "client": f"saymask {saymask.__version__}",
        "files": dict(files or {}),
    }


def organ_details(finding: OrganFinding) -> dict[str, Any]:
    """Return the fields that the report of an organ has beside those of `report`."""
    return {
        "outcome": finding.outcome,
        "answer": finding.answer,
        "snomed_ct": finding.snomed_code,
        "snomed_ct_laterality": finding.laterality_code,
        "margin": round(finding.margin, 6),
        "presence": round(finding.presence, 6),
        "similarities": [round(float(cosine), 6) for cosine in finding.similarities],
        "cache_version": finding.cache_version,
        # The box of `report` is zeros where there is none.
        "box_xyxy": None if finding.box_xyxy is None else _rounded(finding.box_xyxy),
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a report as UTF-8 JSON."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _rounded(numbers: Iterable[float]) -> list[float]:
    return [round(float(number), 3) for number in numbers]
