"""What commands that ask about a picture share: options, files they read and write, wording.

The exit codes of errors are given in `cli`.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from saymask import writers
from saymask._inputs import check_prompts
from saymask.client import Client
from saymask.connection import Tls
from saymask.errors import InvalidArgument, SaymaskError
from saymask.readers import PLANES, read_image
from saymask.results import Segmentation
from saymask.source_image import SourceImage

OK, FAILED, USAGE, NOTHING_FOUND, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES = """exit codes:
  0  done; segment, organs, chat: something was found for at least one question, or chat answered
     in words, or was asked nothing
  1  the server could not be reached or failed, or a file could not be written; chat: a line
     failed, or a replay differs; health: the server, or a model of it, is not ready
  2  the command line or the image file is wrong; nothing was asked
  3  segment, organs, chat ran, and found nothing for any question"""

DEFAULT_OUTPUT = Path("saymask_out")
MASK_FORMS = ("png", "nifti")  # the first is the default

_T = TypeVar("_T")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the image, the questions, and which files to write."""
    parser.add_argument("image", metavar="IMAGE", help="PNG, JPEG, NIfTI (.nii, .nii.gz) or DICOM")
    parser.add_argument(
        "prompt", nargs="?", type=_question, metavar="QUESTION", help="what to find, in words"
    )
    parser.add_argument(
        "-p",
        "--prompt",
        dest="more_prompts",
        type=_question,
        action="append",
        default=[],
        metavar="QUESTION",
        help="a further question on the same image; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help=f"folder for the files ({DEFAULT_OUTPUT})",
    )
    parser.add_argument(
        "--mask",
        choices=MASK_FORMS,
        default=MASK_FORMS[0],
        help=f"form of the mask; nifti lies in the source's volume ({MASK_FORMS[0]})",
    )
    parser.add_argument("--plane", choices=PLANES, help="of a NIfTI volume (axial)")
    parser.add_argument(
        "--slice", type=_slice, metavar="N|middle", help="of a NIfTI volume, from 0 (middle)"
    )
    parser.add_argument(
        "--frame", type=int, metavar="N", help="of a multi-frame DICOM or 4-D NIfTI, from 1 (1)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def add_window_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the range of values to show; `default` says which it is where none is given."""
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help=f"values shown black and white ({default})",
    )


def prompts_of(options: argparse.Namespace) -> list[str]:
    """Return all questions.

    Raises:
        InvalidArgument: if there is none, or one is empty.
    """
    prompts = [*([] if options.prompt is None else [options.prompt]), *options.more_prompts]
    if not prompts:
        raise InvalidArgument(f'no question: saymask {options.command} IMAGE "the liver"')
    return check_prompts(prompts)


def client_of(options: argparse.Namespace) -> Client:
    """Return a client of the server that the options name."""
    tls = Tls(root_certificates=options.tls_ca) if options.tls_ca else options.tls
    return Client(options.url, timeout_s=options.timeout, tls=tls)


def read_source(
    options: argparse.Namespace, ct_window: tuple[float, float] | None = None
) -> SourceImage:
    """Read the picture, and check that its masks can be written as asked."""
    source = read_image(
        options.image,
        plane=options.plane,
        slice_index=options.slice,
        frame_number=options.frame,
        window=tuple(options.window) if options.window else None,
        ct_window=ct_window,
    )
    if options.mask == "nifti" and source.geometry is None:
        raise InvalidArgument(
            f"--mask nifti: {source.path.name} does not say where its pixels lie in the patient; "
            "use --mask png"
        )
    return source


def write_answers(
    client: Client,
    source: SourceImage,
    answers: Sequence[Segmentation],
    options: argparse.Namespace,
    details: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """Write the files of all answers.

    Args:
        client: of the server that answered, which is asked what it is.
        source: the picture.
        answers: on its pixel grid.
        options: of the command.
        details: further fields of each report; `answer` also stands under the overlay.

    Returns:
        The reports, and what to know of all answers of this server ("" if nothing).
    """
    health, models = _told(client.health), _told(client.models) or []
    server, note = (health.server, health.note) if health is not None else (None, "")
    reports: list[dict[str, Any]] = []
    taken: set[str] = set()
    for answer, more in zip(answers, details or [{}] * len(answers), strict=True):
        name = _free_name(f"{source.case}_{writers.prompt_slug(answer.prompt)}", taken)
        if _is_of_another_image(options.output / f"{name}.json", source):
            name = f"{name}_{source.sha256[:8]}"
        files = {
            "mask": f"{name}_mask.png" if options.mask == "png" else f"{name}.nii.gz",
            "overlay": f"{name}_overlay.png",
            "report": f"{name}.json",
        }
        if options.mask == "png":
            writers.write_mask_png(options.output / files["mask"], answer)
        else:
            writers.write_mask_nifti(options.output / files["mask"], answer, source)
        caption = "   ·   ".join(filter(None, (more.get("answer"), note)))
        writers.write_overlay(options.output / files["overlay"], answer, source, caption)
        report = writers.report(answer, source, server=server, models=models, files=files)
        report.update(more)
        writers.write_json(options.output / files["report"], report)
        reports.append(report)
    return reports, note


def print_reports(reports: Sequence[Mapping[str, Any]]) -> None:
    """Print all reports as one document."""
    print(json.dumps({"schema": writers.REPORT_SCHEMA, "results": reports}, indent=2))


def introduction(source: SourceImage) -> str:
    """Say in one line which picture is asked about and how it is shown."""
    height, width = source.pixels.shape[:2]
    parts = [source.path.name, source.description, f"{width} x {height} px"]
    if source.spacing_mm is not None:
        row_mm, column_mm = source.spacing_mm
        parts.append(f"{column_mm:.3g} x {row_mm:.3g} mm a pixel")
    if source.intensity:
        parts.append(f"values {source.intensity}")
    return ", ".join(part for part in parts if part)


def found_lines(answer: Segmentation, report: Mapping[str, Any]) -> list[str]:
    """Say how large an outline is, where, and how decided the model was about it."""
    area = f"{report['area_px']:,} px"
    if report["area_mm2"] is not None:
        area += f", {report['area_mm2']:,.1f} mm²"
    share = answer.mask.mean()
    percent = f"{share:.1%}" if share >= 0.001 else "<0.1%"
    x0, y0, x1, y1 = (round(float(edge)) for edge in answer.box_xyxy)
    return [
        f"  found    {area} ({percent} of the picture)",
        f"  box      x {x0} to {x1}, y {y0} to {y1}, counted from the top left corner",
        f"  score    {answer.score:.2f} (mean probability of the mask's pixels, 0.5 to 1; "
        "not whether it is the right structure)",
    ]


def closing_lines(answer: Segmentation, report: Mapping[str, Any], output: Path) -> list[str]:
    """Say how long an answer took and which files it has."""
    files = [f"  {what:<8} {output / name}" for what, name in report["files"].items()]
    return [f"  time     {answer.timings_ms['total'] / 1e3:.1f} s", *files]


def _told(question: Callable[..., _T]) -> _T | None:
    """Return what the server says of itself; None where it does not, no reason to fail now."""
    try:
        return question(timeout_s=10)
    except SaymaskError:
        return None


def _free_name(name: str, taken: set[str]) -> str:
    """Return `name`, numbered if one question was asked twice."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _is_of_another_image(report: Path, source: SourceImage) -> bool:
    """Return whether the name is taken: two patients may have a file `IM1` each."""
    try:
        written = json.loads(report.read_text(encoding="utf-8"))["source"]["sha256"]
    except FileNotFoundError:
        return False
    except (ValueError, LookupError, TypeError):  # no report of ours, so not ours to replace
        return True
    return bool(written != source.sha256)


def _question(text: str) -> str:
    # In the C locale Python hands over what is not ASCII as escaped bytes; shells send UTF-8.
    return os.fsencode(text).decode("utf-8", errors="replace")


def _slice(text: str) -> int | None:
    if text == "middle":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or 'middle', got {text!r}") from None
