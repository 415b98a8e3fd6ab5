"""Installs the servers that only tests start beside Triton: Redis and HAProxy, from Debian.

As root on a system with apt-get; elsewhere it says what is missing, and those tests skip. Uses the
standard library alone. Nothing is left running: the tests start servers of their own.
"""

import os
import shutil
import subprocess
import sys

PROGRAMS = ("redis-server", "haproxy")
"""Programs, and the Debian packages that have them."""


def main() -> int:
    """Install what is missing; returns 0 in any case: without, the tests skip and say so."""
    # Debian installs servers where the search path of a user does not always lead.
    places = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = [program for program in PROGRAMS if not shutil.which(program, path=places)]
    if not missing:
        return 0
    wanted = " ".join(missing)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"tests that need {wanted} will be skipped; to run them, install these")
        return 0
    print(f"Installing {wanted} for the tests", flush=True)
    # Run level 1: the packages' services are not started.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", *missing]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{' '.join(command)} failed; tests that need {wanted} will be skipped")
            print(done.stderr[-500:], file=sys.stderr)
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
