"""Runs one server as a child and leaves nothing behind when it ends, however it ends.

Started by `serving.launcher` as a script of its own, with the standard library alone. Its standard
input is a pipe that the launcher holds open: the end of the pipe means stop, whether the launcher
asked for it or was killed. It then ends the server, every process the server left, their files in
`/dev/shm` and the temporary folder. A server that loses one of its processes is ended, too: what
was asked of that process would never be answered, and the server would go on calling itself ready.
Knows nothing of Triton.

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

LOOK_INTERVAL_S = 1.0
"""Between two looks at the server's processes; one found dead twice is lost."""

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
        lost = _watch(server.pid, (0, signals))
        for process in lost:
            sys.stderr.write(f"the server lost its process {process}, so it is ended\n")
        regions = _mapped_regions(server.pid)
        if server.poll() is None:
            server.terminate()
            _wait(server.pid, (signals,), float(grace_s))
        if server.poll() is None:
            server.kill()
        status = server.wait()
        _end_descendants()
        _unlink_regions(shm_prefix, regions)
        return status or bool(lost)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    # Only for a supervisor that is itself killed outright; safe here, there is one thread.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch(server: int, descriptors: tuple[int, ...]) -> list[str]:
    """Return when the server has ended or is to stop, or has lost processes: those then."""
    commands: dict[int, str] = {}
    dead: set[int] = set()
    while not _wait(server, descriptors, LOOK_INTERVAL_S):
        states = {pid: state for pid, (parent, state) in _processes().items() if parent == server}
        dead, dead_before = {pid for pid, state in states.items() if state == "Z"}, dead
        # A process that ended as it should is a zombie only until the server asks for its status.
        if lost := dead & dead_before:
            return [f"{pid} ({commands.get(pid, 'its command is not known')})" for pid in lost]
        for pid in states.keys() - dead - commands.keys():
            with suppress(OSError):
                command = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
                commands[pid] = b" ".join(command[:2]).decode(errors="replace")
    return []


def _wait(pid: int, descriptors: tuple[int, ...], timeout_s: float) -> bool:
    """Whether the process has ended or one of the descriptors is readable, before time is up."""
    process = os.pidfd_open(pid)
    try:
        readable, _, _ = select.select([process, *descriptors], [], [], timeout_s)
        for descriptor in set(readable) - {process}:
            os.read(descriptor, 1)
        return bool(readable)
    finally:
        os.close(process)


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):  # it may have ended meanwhile
                # The command name, in parentheses, may hold blanks: fields follow the last one.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found[int(entry.name)] = (int(parent), state)
    return found


def _descendants() -> Iterator[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in _processes().items():
        children.setdefault(parent, []).append(pid)
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
