"""The private folder that all models of one server share, for Unix sockets.

Named by `SAYMASK_RUNTIME_DIR`, or made in the system's temporary folder and named after the
server's process, which every model's process has as its parent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

VARIABLE = "SAYMASK_RUNTIME_DIR"

MAX_FOLDER_BYTES = 107 - len("/engine/") - 36
"""Longest folder: a socket's path has at most 107 bytes, and vLLM names its own with 36."""


def open_runtime_folder(server_pid: int) -> Path:
    """Return the folder; make it if need be.

    Args:
        server_pid: Process id of the server.

    Raises:
        PermissionError: if the folder belongs to somebody else or lets others in.
        ValueError: if the path is too long for sockets.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        _remove_stale()
    folder = Path(named) if named else _made_for(str(server_pid))
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        raise ValueError(
            f"{folder}: too long for sockets, at most {MAX_FOLDER_BYTES} bytes; "
            f"set {VARIABLE} to a shorter one"
        )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or mode & 0o077:
        raise PermissionError(
            f"{folder}: expected a folder of uid {os.getuid()} with mode 0700, got uid "
            f"{status.st_uid}, mode {mode:04o}; set {VARIABLE} to a private folder"
        )
    return folder


def _made_for(server_pid: str) -> Path:
    return Path(tempfile.gettempdir()) / f"saymask-{os.getuid()}-{server_pid}"


def _remove_stale() -> None:
    """Remove what servers left that were killed outright."""
    for folder in _made_for("").parent.glob(_made_for("*").name):
        pid = folder.name.rsplit("-", 1)[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def remove_runtime_folder(folder: Path) -> None:
    """Remove the folder, unless whoever started the server made it."""
    if VARIABLE not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)
