"""Memory of processes, and what a GPU does meanwhile."""

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pynvml

SAMPLE_EVERY_S = 0.1


def memory(name: str, pid: int) -> dict[str, float]:
    """`NAME_memory_mib` of a process and all below it; `NAME_gpu_memory_mib` where it has some."""
    figures = {f"{name}_memory_mib": memory_mib(pid)}
    if held := gpu_memory_mib(pid):
        figures[f"{name}_gpu_memory_mib"] = held
    return figures


def memory_mib(pid: int) -> float:
    """Proportional set size of a process and all below it: shared pages count once, in shares."""
    root = psutil.Process(pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 2**20


def gpu_memory_mib(pid: int) -> float:
    """Memory that a process and all below it hold on all GPUs; 0 without a GPU."""
    root = psutil.Process(pid)
    pids = {root.pid, *(child.pid for child in root.children(recursive=True))}
    held = 0
    for handle in _handles():
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid in pids:
                held += process.usedGpuMemory or 0
    return held / 2**20


@contextmanager
def gpu_activity() -> Iterator[dict[str, float]]:
    """Watch the GPUs during the block.

    Yields:
        A dict that holds `gpu_utilization_percent` and `gpu_power_w`, means over time and summed
        over GPUs, after the block; empty without a GPU.
    """
    figures: dict[str, float] = {}
    handles = _handles()
    if not handles:
        yield figures
        return
    done = threading.Event()
    utilization: list[float] = []
    power: list[float] = []

    def sample() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            utilization.append(sum(pynvml.nvmlDeviceGetUtilizationRates(h).gpu for h in handles))
            power.append(sum(pynvml.nvmlDeviceGetPowerUsage(h) for h in handles) / 1e3)

    thread = threading.Thread(target=sample, name="gpu-activity", daemon=True)
    thread.start()
    try:
        yield figures
    finally:
        done.set()
        thread.join()
    if power:
        figures["gpu_utilization_percent"] = statistics.mean(utilization)
        figures["gpu_power_w"] = statistics.mean(power)


def _handles() -> list:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
