"""CUDA sources -> PTX, by NVIDIA's compiler."""

import shutil
import subprocess
import tempfile
from pathlib import Path

OLDEST_ARCHITECTURE = "compute_75"
"""Turing, the oldest Triton's images run on; the driver compiles PTX for newer GPUs when it loads
an engine."""


def compile_ptx(source: Path, architecture: str = OLDEST_ARCHITECTURE) -> bytes:
    """Compile one file.

    Args:
        source: A `.cu` file.
        architecture: Virtual GPU architecture, for example "compute_90".

    Raises:
        LookupError: if there is no nvcc on the path.
        ValueError: if nvcc refuses the file; says what nvcc said.
    """
    compiler = shutil.which("nvcc")
    if compiler is None:
        raise LookupError(
            f"{source.name}: nvcc is not on the path; it is part of NVIDIA's CUDA toolkit, "
            "of its devel images and of Triton's images from 26.10 on"
        )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "kernels.ptx")
        command = [compiler, "--ptx", f"--gpu-architecture={architecture}", str(source)]
        run = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
        if run.returncode:
            raise ValueError(f"{source.name}: nvcc failed: {run.stderr.strip()}")
        return target.read_bytes()
