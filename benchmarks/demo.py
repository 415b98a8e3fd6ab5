"""Command: starts the real server and asks all systems through the command line, as a user would.

MediSee is asked about a real brain MRI, FSL's MNI152 template; Organ-Seg and MediRound about a
synthetic abdominal CT. The demo weights were trained on neither. Pictures, masks and reports go to
`out/demo`.
"""

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

import nibabel as nib
import PIL.Image
from saymask import cli, read_image

from serving.errors import LaunchError
from serving.launcher import launch
from training.data.phantom_files import phantom_images
from training.data.phantoms import draw_anatomy
from training.data.templates import TEST_TEMPLATE, template_path

BRAIN_QUESTIONS: tuple[tuple[int, str], ...] = (
    (56, "which structure consolidates memories?"),
    (80, "Which part relays sensory signals to the cortex?"),
    (45, "Which part of the brain controls balance?"),
    (85, "What is filled with cerebrospinal fluid, on both sides?"),
    (78, "the putamen"),
    (75, "Which lobe processes vision?"),
)
"""Axial slice (from 0, feet to head) and question. The first is asked for an explanation too."""

BODY_SEED = 2**31 + 105
"""Of the bodies that training never sees; its left kidney is removed for the demo."""

SLICE_SPACING_MM = 3.0

ORGAN_QUESTIONS: tuple[tuple[int, str], ...] = (
    (29, "Which organ stores bile?"),
    (29, "Where are the stomach and the liver?"),
    (29, "the left kidney"),
    (29, "Which brain structure consolidates memories?"),
)
"""Axial slice (from 0, feet to head) and question: found, two organs, removed, irrelevant."""

TALK_SLICE = 29
TALK = """\
# A prepared conversation for `saymask chat`: every line is a question or a command.
the liver
Segment the lesion inside it.
Based on the output of round 1, segment the sac that stores what it makes.
Segment the organ it empties into.
Referring to instance 1, segment the large vein that carries its blood away.
the aorta and the right kidney
"""


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/demo"))
    output: Path = parser.parse_args(argv).output
    output.mkdir(parents=True, exist_ok=True)
    brain, abdomen = _write_volumes(output)

    print("Starting Triton with the demo models (vLLM takes about half a minute) ...", flush=True)
    started = time.monotonic()
    try:
        with launch(["medisee", "medisee_explain", "organseg", "mediround"]) as server:
            print(f"Ready after {time.monotonic() - started:.0f} s\n", flush=True)
            sheets = [
                _medisee(server.grpc_url, brain, output),
                _organseg(server.grpc_url, abdomen, output),
                _mediround(server.grpc_url, abdomen, output),
            ]
    except LaunchError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    print(f"A picture for each system: {', '.join(map(str, sheets))}")
    print("The server has ended. To ask again, or your own: make serve, and in another terminal")
    print("the commands above, or .venv/bin/saymask --help")
    return 0


def _write_volumes(output: Path) -> tuple[Path, Path]:
    """Write the MRI and the CT, and one slice of the MRI as PNG."""
    brain = output / "mni152_brain.nii.gz"
    shutil.copyfile(template_path(TEST_TEMPLATE), brain)
    first = read_image(brain, plane="axial", slice_index=BRAIN_QUESTIONS[0][0])
    PIL.Image.fromarray(first.pixels[..., 0]).save(output / "slice.png")
    abdomen = output / "synthetic_abdomen.nii.gz"
    anatomy = draw_anatomy(BODY_SEED, missing=["left kidney"], lesion=True)
    nib.save(phantom_images(anatomy, SLICE_SPACING_MM)[0], abdomen)
    return brain, abdomen


def _medisee(url: str, volume: Path, output: Path) -> Path:
    print("== MediSee: one question, one mask\n")
    overlays = []
    for number, (z, question) in enumerate(BRAIN_QUESTIONS):
        explain = [] if number else ["--explain"]
        command = ["segment", str(volume), question, "--slice", str(z), *explain]
        overlays += _run(url, command, output / f"brain_{z}")
    return _sheet(overlays, output / "medisee.png")


def _organseg(url: str, volume: Path, output: Path) -> Path:
    print("== Organ-Seg: organs of the abdomen, or a refusal\n")
    overlays = []
    for number, (z, question) in enumerate(ORGAN_QUESTIONS):
        command = ["organs", str(volume), question, "--slice", str(z)]
        overlays += _run(url, command, output / f"organs_{number}")
    return _sheet(overlays, output / "organseg.png")


def _mediround(url: str, volume: Path, output: Path) -> Path:
    print("== MediRound: a conversation whose rounds refer to each other\n")
    script = output / "talk.txt"
    script.write_text(TALK)
    command = ["chat", str(volume), "--slice", str(TALK_SLICE), "--window", "-160", "240"]
    command += ["--script", str(script), "--save", str(output / "talk.json")]
    return _sheet(_run(url, command, output / "talk"), output / "mediround.png")


def _run(url: str, command: list[str], folder: Path) -> list[Path]:
    """Ask through the command line client and return the overlays it wrote, oldest first."""
    shutil.rmtree(folder, ignore_errors=True)  # a run before wrote there
    command = [*command, "-o", str(folder)]
    print("$ .venv/bin/saymask", shlex.join(command))
    code = cli.main([*command, "--url", url])
    print(flush=True)
    if code not in (cli.OK, cli.NOTHING_FOUND):
        raise SystemExit(code)
    return sorted(folder.glob("*overlay*.png"), key=lambda path: path.stat().st_mtime)


def _sheet(overlays: list[Path], file: Path) -> Path:
    contact_sheet(overlays).save(file)
    return file


def contact_sheet(files: list[Path], columns: int = 3) -> PIL.Image.Image:
    """Pictures of equal or different size on one sheet, `columns` side by side."""
    pictures = [PIL.Image.open(file).convert("RGB") for file in files]
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = PIL.Image.new("RGB", (columns * width, rows * height))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return sheet


if __name__ == "__main__":
    raise SystemExit(main())
