import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENGINE = """
import os, sys, time
sys.path.insert(0, {root!r})
from serving.mllm.owner_watch import end_with
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
"""

OWNER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_an_engine_ends_when_its_owner_is_killed():
    root = str(Path(__file__).resolve().parents[3])
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, ENGINE.format(root=root)], stdout=subprocess.PIPE, text=True
    )
    engine_pid = int(owner.stdout.readline())
    time.sleep(1)
    assert Path(f"/proc/{engine_pid}").exists()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{engine_pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{engine_pid}").exists()
