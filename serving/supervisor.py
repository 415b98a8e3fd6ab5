"""Runs one server as a child and leaves nothing behind when it ends, however it ends.

Started by `serving.launcher` as a script of its own, with the standard library alone. Its standard
input is a pipe that the launcher holds open: the end of the pipe means stop, whether the launcher
asked for it or was killed. It then ends the server, every process the server left, their files in
`/dev/shm` and the temporary folder. Knows nothing of Triton.

    python supervisor.py GRACE_S SHM_PREFIX TEMPORARY_FOLDER COMMAND...
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHM = Path("/dev/shm")
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> int:
    """Run the command until it ends or is to stop; returns its exit status."""
    grace_s, shm_prefix, folder, *command = argv
    signals, wake = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(wake, b"!"))
    # Orphans of the server become our children, so that they can be found and ended.
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        # restore_signals=False leaves SIGPIPE ignored: a launcher that was killed reads no log.
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent, restore_signals=False
        )
        _wait(server.pid, (0, signals))
        regions = _mapped_regions(server.pid)
        if server.poll() is None:
            server.terminate()
            _wait(server.pid, (signals,), float(grace_s))
        if server.poll() is None:
            server.kill()
        status = server.wait()
        _end_descendants()
        _unlink_regions(shm_prefix, regions)
        return status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    # Only for a supervisor that is itself killed outright; safe here, there is one thread.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait(pid: int, descriptors: tuple[int, ...], timeout_s: float | None = None) -> None:
    """Return when the process has ended, one of the descriptors is readable, or time is up."""
    process = os.pidfd_open(pid)
    try:
        readable, _, _ = select.select([process, *descriptors], [], [], timeout_s)
        for descriptor in set(readable) - {process}:
            os.read(descriptor, 1)
    finally:
        os.close(process)


def _descendants() -> Iterator[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):  # it may have ended meanwhile
                # The command name, in parentheses, may hold blanks: fields follow the last one.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    waiting = list(children.get(os.getpid(), ()))
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(children.get(pid, ()))


def _shm_files(pid: str) -> set[Path]:
    """Files in /dev/shm that a process has mapped."""
    with suppress(OSError):
        lines = Path("/proc", pid, "maps").read_text().splitlines()
        paths = (line.split(maxsplit=5)[-1] for line in lines if f" {_SHM}/" in line)
        return {Path(path) for path in paths}
    return set()


def _mapped_regions(server: int) -> set[Path]:
    """Files in /dev/shm of the server's children, not of the server: those may be its clients'."""
    regions: set[Path] = set()
    for pid in _descendants():
        if pid != server:
            regions |= _shm_files(str(pid))
    return regions


def _end_descendants() -> None:
    for _ in range(100):
        left = list(_descendants())
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def _unlink_regions(prefix: str, mapped: set[Path]) -> None:
    regions = {path for path in mapped if path.exists()}
    if regions:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                regions -= _shm_files(entry.name)
    for path in regions | set(_SHM.glob(f"{prefix}*")):
        with suppress(OSError):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
