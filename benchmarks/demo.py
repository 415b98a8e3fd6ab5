"""Command: starts the real server and asks it about a real brain MRI, as a user would.

The MRI is FSL's MNI152 template, which the demo weights were not trained on. Pictures, masks and
reports go to `out/demo`; nothing is prepared but the weights.
"""

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

import PIL.Image
from saymask import cli, read_image

from serving.errors import LaunchError
from serving.launcher import launch
from training.data.templates import TEST_TEMPLATE, template_path

QUESTIONS: tuple[tuple[int, str], ...] = (
    (56, "which structure consolidates memories?"),
    (80, "Which part relays sensory signals to the cortex?"),
    (45, "Which part of the brain controls balance?"),
    (85, "What is filled with cerebrospinal fluid, on both sides?"),
    (78, "the putamen"),
    (75, "Which lobe processes vision?"),
)
"""Axial slice (from 0, feet to head) and question. The first is asked for an explanation too."""


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/demo"))
    output: Path = parser.parse_args(argv).output
    output.mkdir(parents=True, exist_ok=True)
    volume = output / "mni152_brain.nii.gz"
    shutil.copyfile(template_path(TEST_TEMPLATE), volume)
    first = read_image(volume, plane="axial", slice_index=QUESTIONS[0][0])
    PIL.Image.fromarray(first.pixels[..., 0]).save(output / "slice.png")

    print("Starting Triton with the demo models (vLLM takes about half a minute) ...", flush=True)
    started = time.monotonic()
    try:
        with launch(["medisee", "medisee_explain"]) as server:
            print(f"Ready after {time.monotonic() - started:.0f} s\n", flush=True)
            overlays = [
                _ask(server.grpc_url, volume, output, z, question, explain=number == 0)
                for number, (z, question) in enumerate(QUESTIONS)
            ]
    except LaunchError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    sheet = output / "medisee.png"
    contact_sheet(overlays).save(sheet)
    print(f"All pictures on one sheet: {sheet}")
    print("The server has ended. To ask again, or your own: make serve, and in another terminal")
    print("the commands above, or .venv/bin/saymask segment --help")
    return 0


def _ask(url: str, volume: Path, output: Path, z: int, question: str, *, explain: bool) -> Path:
    """Ask through the command line client and return the overlay it wrote."""
    folder = output / f"slice_{z}"
    command = ["segment", str(volume), question, "--slice", str(z), "-o", str(folder)]
    command += ["--explain"] if explain else []
    print("$ .venv/bin/saymask", shlex.join(command))
    code = cli.main([*command, "--url", url])
    print(flush=True)
    if code not in (0, 3):
        raise SystemExit(code)
    overlays = sorted(folder.glob("*overlay*.png"), key=lambda path: path.stat().st_mtime)
    if not overlays:
        raise FileNotFoundError(f"the client wrote no overlay to {folder}")
    return overlays[-1]


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
