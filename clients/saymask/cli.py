"""The command `saymask`: ask about a picture from a shell, see what a server has and how it is.

Reads with `readers`, asks with `Client`, writes with `writers`; only wording and exit codes are
its own.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import saymask
from saymask import writers
from saymask._inputs import check_prompts
from saymask.client import Client, PendingSegmentation
from saymask.connection import DEFAULT_URL, Tls
from saymask.errors import InvalidArgument, SaymaskError
from saymask.readers import PLANES, read_image
from saymask.results import Health, Segmentation, TensorInfo
from saymask.source_image import SourceImage
from saymask.square import answer_on_original, pad_to_square

__all__ = ["main"]

OK, FAILED, USAGE, NOTHING_FOUND, INTERRUPTED = 0, 1, 2, 3, 130

URL_VARIABLE = "SAYMASK_SERVER_URL"
"""Environment variable that names the server where `--url` does not."""

_IN_A_SHELL = {
    "timeout_s": "--timeout",
    "url: expected": "--url: expected",
    "pass tls=True": "pass --tls",
    " or pass Client(max_message_bytes=...)": "",
    ", or raise Client(max_message_bytes=...)": "",
    "with Client(headers={...})": "in Python, with Client(headers={...}): this command sends none",
}
"""What errors call things in Python, and how to say the same on the command line."""

_T = TypeVar("_T")

_EXIT_CODES = """exit codes:
  0  done; segment: something was found for at least one question
  1  the server could not be reached or failed, or a file could not be written
  2  the command line or the image file is wrong; nothing was sent
  3  segment ran, and found nothing for any question"""

_SEGMENT_EXAMPLES = f"""examples:
  saymask segment slice.png "the thalamus" -o out/
  saymask segment brain.nii.gz "which part relays signals to the cortex?" --plane coronal --explain
  saymask segment head.dcm -p "the cerebellum" -p "what stores memories?" --mask nifti --json

{_EXIT_CODES}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a shell in the C locale must not end in a traceback
            stream.reconfigure(errors="replace")
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("saymask: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # such as `saymask models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"saymask: error: {_one_line(error)}", file=sys.stderr)
        # What the client refused itself was in the command line; nothing was sent.
        refused = isinstance(error, InvalidArgument) and error.code is None
        return USAGE if refused else FAILED


def _segment(options: argparse.Namespace) -> int:
    prompts = [*([] if options.prompt is None else [options.prompt]), *options.more_prompts]
    if not prompts:
        raise InvalidArgument('no question: saymask segment IMAGE "the thalamus"')
    check_prompts(prompts)
    talk = not (options.json or options.quiet)
    with _client(options) as client:  # refuses wrong options; the first question connects
        source = _read(options)
        options.output.mkdir(parents=True, exist_ok=True)
        if talk:
            print(_introduction(source), flush=True)
        answers = _ask(client, source, prompts, options, talk)
        health = _told(client.health)
        reports = _write(client, source, answers, health, options)
    if options.json:
        print(json.dumps({"schema": writers.REPORT_SCHEMA, "results": reports}, indent=2))
    elif talk:
        if options.square:
            _warn_if_padded(source)
        for answer, report in zip(answers, reports, strict=True):
            print(_outcome(answer, report, options.output))
        if health is not None and health.note:
            print(f"\n{health.note}")
    return OK if any(answer.found for answer in answers) else NOTHING_FOUND


def _read(options: argparse.Namespace) -> SourceImage:
    source = read_image(
        options.image,
        plane=options.plane,
        slice_index=options.slice,
        frame_number=options.frame,
        window=tuple(options.window) if options.window else None,
    )
    if options.mask == "nifti" and source.geometry is None:
        raise InvalidArgument(
            f"--mask nifti: {source.path.name} does not say where its pixels lie in the patient; "
            "use --mask png"
        )
    return source


def _ask(
    client: Client,
    source: SourceImage,
    prompts: list[str],
    options: argparse.Namespace,
    talk: bool,
) -> list[Segmentation]:
    """Return the answers, on the source's pixel grid."""
    asked, corner = pad_to_square(source.pixels) if options.square else (source.pixels, (0, 0))
    pending = [client.submit(asked, prompt) for prompt in prompts]
    try:
        explanations = [
            _explanation(client, asked, prompt, mask, talk) if options.explain else None
            for prompt, mask in zip(prompts, pending, strict=True)
        ]
        answers = [one.result() for one in pending]
    finally:
        for one in pending:
            one.cancel()
    size = (source.pixels.shape[0], source.pixels.shape[1])
    return [
        replace(answer_on_original(answer, corner, size), explanation=explanation)
        for answer, explanation in zip(answers, explanations, strict=True)
    ]


def _explanation(
    client: Client, asked: Any, prompt: str, mask: PendingSegmentation, talk: bool
) -> str | None:
    """Return the explanation, printed piece by piece as it comes; None if it alone fails."""
    if talk:
        print(f"\nexplanation of “{prompt}”\n  ", end="", flush=True)
    pieces = []
    failure = None
    try:
        with client.explain(asked, prompt) as stream:
            for piece in stream:
                pieces.append(piece)
                if talk:
                    print(piece.replace("\n", "\n  "), end="", flush=True)
    except SaymaskError as error:
        failure = error
    if talk:
        print(flush=True)
    if failure is None:
        return "".join(pieces)
    mask.result()  # where that fails too, its error is the one to tell
    print(f"no explanation: {_one_line(failure)}", file=sys.stderr, flush=True)
    return None


def _write(
    client: Client,
    source: SourceImage,
    answers: list[Segmentation],
    health: Health | None,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Write the files of all answers and return their reports."""
    models = _told(client.models) or []
    server, note = (health.server, health.note) if health is not None else (None, "")
    reports: list[dict[str, Any]] = []
    taken: set[str] = set()
    for answer in answers:
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
        writers.write_overlay(options.output / files["overlay"], answer, source, note)
        report = writers.report(answer, source, server=server, models=models, files=files)
        writers.write_json(options.output / files["report"], report)
        reports.append(report)
    return reports


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


def _introduction(source: SourceImage) -> str:
    height, width = source.pixels.shape[:2]
    parts = [source.path.name, source.description, f"{width} x {height} px"]
    if source.spacing_mm is not None:
        row_mm, column_mm = source.spacing_mm
        parts.append(f"{column_mm:.3g} x {row_mm:.3g} mm a pixel")
    if source.intensity:
        parts.append(f"values {source.intensity}")
    return ", ".join(part for part in parts if part)


def _warn_if_padded(source: SourceImage) -> None:
    height, width = source.pixels.shape[:2]
    if height != width:
        side = max(height, width)
        print(f"(asked about a square of {side} x {side} px with black borders)")


def _outcome(answer: Segmentation, report: dict[str, Any], output: Path) -> str:
    lines = [f"\n“{answer.prompt}”"]
    if answer.found:
        area = f"{report['area_px']:,} px"
        if report["area_mm2"] is not None:
            area += f", {report['area_mm2']:,.1f} mm²"
        share = answer.mask.mean()
        percent = f"{share:.1%}" if share >= 0.001 else "<0.1%"
        x0, y0, x1, y1 = (round(float(edge)) for edge in answer.box_xyxy)
        lines += [
            f"  found    {area} ({percent} of the picture)",
            f"  box      x {x0} to {x1}, y {y0} to {y1}, counted from the top left corner",
            f"  score    {answer.score:.2f} (mean probability of the mask's pixels, 0.5 to 1; "
            "not whether it is the right structure)",
        ]
    else:
        lines.append("  nothing found: the model marked no pixel for this question")
    lines.append(f"  time     {answer.timings_ms['total'] / 1e3:.1f} s")
    for what, name in report["files"].items():
        lines.append(f"  {what:<8} {output / name}")
    return "\n".join(lines)


def _models(options: argparse.Namespace) -> int:
    with _client(options) as client:
        models = client.models()
    if options.json:
        print(json.dumps({"models": [asdict(model) for model in models]}, indent=2))
        return OK
    for model in models:
        print(f"{model.name}  version {model.version}  {model.state}")
        for title, tensors in (("in ", model.inputs), ("out", model.outputs)):
            print(f"  {title}  " + ", ".join(map(_tensor, tensors)))
    return OK


def _tensor(tensor: TensorInfo) -> str:
    sizes = " x ".join("any" if size < 0 else str(size) for size in tensor.shape)
    return f"{tensor.name} {tensor.dtype} ({sizes})"


def _health(options: argparse.Namespace) -> int:
    with _client(options) as client:
        health = client.health()
    if options.json:
        print(json.dumps(asdict(health) | {"can_segment": health.can_segment}, indent=2))
    else:
        print(f"{options.url}: {health.server}, {'ready' if health.ready else 'not ready yet'}")
        for name, ready in health.pipelines.items():
            print(f"  {name:<16} {'ready' if ready else 'not served'}")
        if health.note:
            print(health.note)
    return OK if health.can_segment else FAILED


def _client(options: argparse.Namespace) -> Client:
    tls = Tls(root_certificates=options.tls_ca) if options.tls_ca else options.tls
    return Client(options.url, timeout_s=options.timeout, tls=tls)


def _one_line(error: BaseException) -> str:
    if isinstance(error, SaymaskError):
        text = str(error)
        for python, shell in _IN_A_SHELL.items():
            text = text.replace(python, shell)
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())


def _common_options(**settings: Any) -> argparse.ArgumentParser:
    """Return the options of all commands, without defaults of their own."""
    common = argparse.ArgumentParser(add_help=False, **settings)
    common.add_argument(
        "--url",
        metavar="HOST:PORT",
        help=f"the server's gRPC address (default: ${URL_VARIABLE}, or {DEFAULT_URL})",
    )
    common.add_argument(
        "--timeout", type=float, metavar="S", help="seconds an answer may take (60)"
    )
    common.add_argument("--tls", action="store_true", help="encrypt the connection")
    common.add_argument(
        "--tls-ca", metavar="FILE", help="encrypt it, and trust the authorities in this PEM file"
    )
    common.add_argument("--json", action="store_true", help="print JSON, for machines")
    common.add_argument("--debug", action="store_true", help="show a traceback on errors")
    return common


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saymask",
        parents=[_common_options()],
        description="Ask in plain words about a medical image; get the mask.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saymask {saymask.__version__}")
    parser.set_defaults(url=os.environ.get(URL_VARIABLE) or DEFAULT_URL, timeout=60.0)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # They stand before the command or after it; what is not given there must not undo it.
    common = _common_options(argument_default=argparse.SUPPRESS)
    _add_segment(commands, common)
    models = commands.add_parser("models", parents=[common], help="list what the server has loaded")
    models.set_defaults(run=_models)
    health = commands.add_parser("health", parents=[common], help="ask how the server is")
    health.set_defaults(run=_health)
    return parser


def _add_segment(commands: Any, common: argparse.ArgumentParser) -> None:
    segment = commands.add_parser(
        "segment",
        parents=[common],
        help="ask questions about one image",
        description="Ask one or more questions about one image and write mask, overlay and report.",
        epilog=_SEGMENT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    segment.add_argument("image", metavar="IMAGE", help="PNG, JPEG, NIfTI (.nii, .nii.gz) or DICOM")
    segment.add_argument(
        "prompt", nargs="?", type=_question, metavar="QUESTION", help="what to find, in words"
    )
    segment.add_argument(
        "-p",
        "--prompt",
        dest="more_prompts",
        type=_question,
        action="append",
        default=[],
        metavar="QUESTION",
        help="a further question on the same image; may be repeated",
    )
    segment.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("saymask_out"),
        metavar="DIR",
        help="folder for the files (saymask_out)",
    )
    segment.add_argument(
        "--explain", action="store_true", help="also print an explanation, as it is written"
    )
    segment.add_argument(
        "--mask",
        choices=("png", "nifti"),
        default="png",
        help="form of the mask; nifti lies in the source's volume (png)",
    )
    segment.add_argument("--plane", choices=PLANES, help="of a NIfTI volume (axial)")
    segment.add_argument(
        "--slice", type=_slice, metavar="N|middle", help="of a NIfTI volume, from 0 (middle)"
    )
    segment.add_argument(
        "--frame", type=int, metavar="N", help="of a multi-frame DICOM or 4-D NIfTI, from 1 (1)"
    )
    segment.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values shown black and white (the file's own window, or nearly the whole range)",
    )
    segment.add_argument(
        "--square",
        action="store_true",
        help="pad the picture to a square before asking; the answer is mapped back",
    )
    segment.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    segment.set_defaults(run=_segment)


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


if __name__ == "__main__":
    sys.exit(main())
