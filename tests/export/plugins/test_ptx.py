import re
import shutil

import pytest

from export.plugins import deformable_attention
from export.plugins.ptx import compile_ptx

needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")


@needs_nvcc
@pytest.mark.parametrize("architecture", ["compute_75", "compute_90", "compute_120"])
def test_both_kernels_take_what_tensorrt_passes(architecture):
    ptx = compile_ptx(deformable_attention.SOURCE, architecture).decode()
    assert f".target sm_{architecture[8:]}" in ptx
    entries = dict(re.findall(r"\.entry (\w+)\((.*?)\)", ptx, re.DOTALL))
    assert set(entries) == {"deformable_attention_float32", "deformable_attention_float16"}
    for parameters in entries.values():  # five inputs, seven numbers, the output
        assert re.findall(r"\.param \.(\w+)", parameters) == ["u64"] * 5 + ["u32"] * 7 + ["u64"]


@needs_nvcc
def test_what_nvcc_says_is_passed_on(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text("__global__ void kernel() { nothing(); }")
    with pytest.raises(ValueError, match=r'broken\.cu: nvcc failed: (.|\n)*"nothing" is undefined'):
        compile_ptx(source)


def test_without_a_compiler_the_error_says_where_one_is(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LookupError, match="nvcc is not on the path; it is part of NVIDIA's CUDA"):
        compile_ptx(deformable_attention.SOURCE)
