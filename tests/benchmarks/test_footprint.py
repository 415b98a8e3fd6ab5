import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from benchmarks import footprint


def test_memory_of_children_counts():
    code = "import sys; held = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"
    own = psutil.Process().pid
    before = footprint.memory_mib(own)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        child.stdout.readline()
        assert footprint.memory_mib(child.pid) > 64
        assert footprint.memory_mib(own) - before == pytest.approx(70, abs=16)
    finally:
        child.communicate()


class TwoGpus:
    """NVML of a machine where this process holds 3 GiB on one of two GPUs."""

    NVMLError = RuntimeError

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802
        mine = SimpleNamespace(pid=psutil.Process().pid, usedGpuMemory=3 << 30)
        return [SimpleNamespace(pid=1, usedGpuMemory=5 << 30), *([mine] if handle == 1 else [])]

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        return SimpleNamespace(gpu=(50, 20)[handle])

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        return (300_000, 100_000)[handle]


def test_gpu_figures_sum_over_gpus_and_leave_other_processes_out(monkeypatch):
    monkeypatch.setattr(footprint, "pynvml", TwoGpus())
    assert footprint.gpu_memory_mib(psutil.Process().pid) == 3 * 1024
    with footprint.gpu_activity() as figures:
        time.sleep(3 * footprint.SAMPLE_EVERY_S)
    assert figures == {"gpu_utilization_percent": 70, "gpu_power_w": 400}


def test_without_a_gpu_there_are_no_gpu_figures(monkeypatch):
    class NoDriver(TwoGpus):
        def nvmlInit(self):  # noqa: N802
            raise RuntimeError("driver not loaded")

    monkeypatch.setattr(footprint, "pynvml", NoDriver())
    assert footprint.gpu_memory_mib(psutil.Process().pid) == 0
    with footprint.gpu_activity() as figures:
        pass
    assert figures == {}
