"""Finds a `tritonserver` binary and what it needs: libraries, the Python stub, a backend directory.

Two layouts are known: the files that the wheel `nvidia-pytriton` carries (of which only these
files are used), and an installation such as `/opt/tritonserver` of NVIDIA's images. Starts nothing.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from serving.environment import PREFIX_VARIABLE
from serving.errors import LaunchError

BACKENDS = Path(__file__).resolve().parent / "backends"
"""Our Python-based backends: every folder in it that holds a `model.py`."""

STUB = "triton_python_backend_stub"

HELP_TIMEOUT_S = 60
"""Seconds the binary may take to print its help."""


@dataclass(frozen=True)
class Installation:
    """One `tritonserver` and the folders that belong to it."""

    binary: Path
    """The executable."""
    backends: Path
    """Its own backend directory."""
    stub: Path
    """The Python stub, for the Python version this process runs."""
    caches: Path | None = None
    """Directory of response caches; None: where the binary looks by itself."""
    libraries: tuple[Path, ...] = ()
    """Folders the dynamic linker must search beside the standard ones."""


def find(binary: Path | None = None) -> Installation:
    """Describe the installation around a binary, or the bundled one.

    Args:
        binary: Path of a `tritonserver`; None takes the one of the wheel `nvidia-pytriton`.

    Raises:
        LaunchError: Something is missing; the text says what to install.
    """
    root = _bundled_root() if binary is None else binary.resolve().parent.parent
    binary = (root / "bin" / "tritonserver" if binary is None else binary).resolve()
    if not os.access(binary, os.X_OK):
        raise LaunchError(f"{binary} is not an executable file")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stubs = root / "python_backend_stubs"
    if not stubs.is_dir():
        stub = root / "backends" / "python" / STUB
        if not stub.is_file():
            raise LaunchError(f"{binary} has no Python backend: {stub} is missing")
        return Installation(binary, root / "backends", stub)
    stub = stubs / version / STUB
    if not stub.is_file():
        known = ", ".join(sorted(entry.name for entry in stubs.iterdir()))
        raise LaunchError(f"no Triton stub for Python {version}; the wheel has {known}")
    libraries = (root.parent.parent / "nvidia_pytriton.libs", _libpython_folder())
    return Installation(binary, root / "backends", stub, root / "caches", libraries)


def backend_names() -> tuple[str, ...]:
    """Names of our Python-based backends."""
    return tuple(sorted(path.parent.name for path in BACKENDS.glob("*/model.py")))


def lay_out_backends(installation: Installation, folder: Path) -> tuple[str, ...]:
    """Fill a new backend directory: the installation's backends, then ours where it has none.

    Args:
        installation: What `find` returned.
        folder: A folder that does not exist yet.

    Returns:
        Names of the Python-based backends of ours that were added.
    """
    folder.mkdir(mode=0o700)
    for source in sorted(installation.backends.iterdir()):
        if source.is_dir() and source.name != "python":
            (folder / source.name).symlink_to(source)
    # A real folder: the wheel keeps the stub of each Python version elsewhere.
    (folder / "python").mkdir()
    for source in (*sorted((installation.backends / "python").iterdir()), installation.stub):
        target = folder / "python" / source.name
        if source.is_file() and not target.exists():
            shutil.copy2(source, target)
    added = [name for name in backend_names() if not (folder / name).exists()]
    for name in added:
        (folder / name).symlink_to(BACKENDS / name)
    return tuple(added)


def environment(installation: Installation) -> dict[str, str]:
    """Environment variables for the server: this process's, with libraries and Python in front.

    ONNX Runtime's telemetry, on by default, is off: nothing leaves the machine.
    """
    variables = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    # The stub finds its Python by looking for `python3` on PATH, and ignores PYTHONPATH.
    variables["PATH"] = os.pathsep.join((f"{sys.prefix}/bin", variables.get("PATH", os.defpath)))
    variables[PREFIX_VARIABLE] = sys.prefix
    folders = [str(folder) for folder in installation.libraries]
    inherited = variables.get("LD_LIBRARY_PATH")
    if folders or inherited:
        variables["LD_LIBRARY_PATH"] = ":".join([*folders, *([inherited] if inherited else [])])
    return variables


def options(installation: Installation) -> str:
    """Help text of the binary: says which options this version knows."""
    try:
        done = subprocess.run(
            [installation.binary, "--help"],
            env=environment(installation),
            capture_output=True,
            text=True,
            timeout=HELP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{installation.binary} does not run: {error}") from error
    if "--model-repository" not in done.stdout + done.stderr:
        raise LaunchError(f"{installation.binary} does not run: {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr


def _bundled_root() -> Path:
    # find_spec does not import the package, whose Python side is not used.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError(
            "no tritonserver here: pip install --no-deps nvidia-pytriton==0.7.0, or name a binary "
            "with --tritonserver PATH"
        )
    return Path(spec.submodule_search_locations[0]) / "tritonserver"


def _libpython_folder() -> Path:
    name = sysconfig.get_config_var("INSTSONAME") or ""
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and ".so" in name and (Path(folder) / name).is_file():
            return Path(folder)
    raise LaunchError(
        f"{sys.executable} has no shared libpython, which Triton's stub loads: use a Python built "
        "with --enable-shared (Debian: apt install libpython3-dev; pyenv: "
        "PYTHON_CONFIGURE_OPTS=--enable-shared; uv's and conda's have it)"
    )
