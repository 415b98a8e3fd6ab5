"""The command `saymask`: ask about a picture from a shell, see what a server has and how it is.

What the commands that ask share is in `_command`; those with a file of their own are
`_organs_command` and `_chat_command`.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import saymask
from saymask._chat_command import add_chat
from saymask._command import (
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    NOTHING_FOUND,
    OK,
    USAGE,
    add_image_options,
    add_window_option,
    client_of,
    closing_lines,
    found_lines,
    introduction,
    print_reports,
    prompts_of,
    read_source,
    write_answers,
)
from saymask._organs_command import add_organs
from saymask.client import Client
from saymask.connection import DEFAULT_URL
from saymask.errors import InvalidArgument, SaymaskError
from saymask.pending_segmentation import PendingSegmentation
from saymask.results import Segmentation, TensorInfo
from saymask.source_image import SourceImage
from saymask.square import answer_on_original, pad_to_square

__all__ = ["main"]

URL_VARIABLE = "SAYMASK_SERVER_URL"
"""Environment variable that names the server where `--url` does not."""

_IN_A_SHELL = {
    "timeout_s": "--timeout",
    "url: expected": "--url: expected",
    "least_margin: expected": "--least-margin: expected",
    "to_round: ": "/undo: ",
    "at_round: ": "/branch: ",
    "pass tls=True": "pass --tls",
    "chat.rounds has them, chat.save(path) writes them, and client.replay_conversation(path) asks "
    "them again in a new conversation": "/save FILE writes them, and saymask chat IMAGE --replay "
    "FILE asks them again",
    " or pass Client(max_message_bytes=...)": "",
    ", or raise Client(max_message_bytes=...)": "",
    "with Client(headers={...})": "in Python, with Client(headers={...}): this command sends none",
}
"""What errors call things in Python, and how to say the same on the command line."""

_SEGMENT_EXAMPLES = f"""examples:
  saymask segment slice.png "the thalamus" -o out/
  saymask segment brain.nii.gz "which part relays signals to the cortex?" --plane coronal --explain
  saymask segment head.dcm -p "the cerebellum" -p "what stores memories?" --mask nifti --json

{EXIT_CODES}"""


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
    prompts = prompts_of(options)
    talk = not (options.json or options.quiet)
    with client_of(options) as client:  # refuses wrong options; the first question connects
        source = read_source(options)
        options.output.mkdir(parents=True, exist_ok=True)
        if talk:
            print(introduction(source), flush=True)
        answers = _ask(client, source, prompts, options, talk)
        reports, note = write_answers(client, source, answers, options)
    if options.json:
        print_reports(reports)
    elif talk:
        if options.square:
            _warn_if_padded(source)
        for answer, report in zip(answers, reports, strict=True):
            print(_outcome(answer, report, options.output))
        if note:
            print(f"\n{note}")
    return OK if any(answer.found for answer in answers) else NOTHING_FOUND


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


def _warn_if_padded(source: SourceImage) -> None:
    height, width = source.pixels.shape[:2]
    if height != width:
        side = max(height, width)
        print(f"(asked about a square of {side} x {side} px with black borders)")


def _outcome(answer: Segmentation, report: dict[str, Any], output: Path) -> str:
    lines = [f"\n“{answer.prompt}”"]
    if answer.found:
        lines += found_lines(answer, report)
    else:
        lines.append("  nothing found: the model marked no pixel for this question")
    return "\n".join([*lines, *closing_lines(answer, report, output)])


def _models(options: argparse.Namespace) -> int:
    with client_of(options) as client:
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
    with client_of(options) as client:
        health = client.health()
    if options.json:
        print(json.dumps(asdict(health) | {"can_segment": health.can_segment}, indent=2))
    else:
        print(f"{options.url}: {health.server}, {'ready' if health.ready else 'not ready yet'}")
        for name, ready in health.pipelines.items():
            print(f"  {name:<16} {'ready' if ready else 'not served'}")
        if health.note:
            print(health.note)
    return OK if health.live and health.ready else FAILED


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
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saymask {saymask.__version__}")
    parser.set_defaults(url=os.environ.get(URL_VARIABLE) or DEFAULT_URL, timeout=60.0)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # They stand before the command or after it; what is not given there must not undo it.
    common = _common_options(argument_default=argparse.SUPPRESS)
    _add_segment(commands, common)
    add_organs(commands, common)
    add_chat(commands, common, _one_line)
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
    add_image_options(segment)
    add_window_option(segment, "the file's own window, or nearly the whole range")
    segment.add_argument(
        "--explain", action="store_true", help="also print an explanation, as it is written"
    )
    segment.add_argument(
        "--square",
        action="store_true",
        help="pad the picture to a square before asking; the answer is mapped back",
    )
    segment.set_defaults(run=_segment, command="segment")


if __name__ == "__main__":
    sys.exit(main())
