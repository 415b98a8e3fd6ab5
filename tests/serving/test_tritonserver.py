"""Finding a server binary and laying out its backend directory."""

import shutil
import stat
import sys
from pathlib import Path

import pytest

from serving import tritonserver
from serving.errors import LaunchError
from serving.launcher import launch


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server laid out as in NVIDIA's images, with a backend `onnxruntime` of its own."""
    bundled = tritonserver.find()
    root = tmp_path / "opt"
    (root / "bin").mkdir(parents=True)
    shutil.copy2(bundled.binary, root / "bin" / "tritonserver")
    shutil.copytree(bundled.backends / "python", root / "backends" / "python")
    shutil.copy2(bundled.stub, root / "backends" / "python")
    shutil.copytree(tritonserver.BACKENDS / "onnxruntime", root / "backends" / "onnxruntime")
    # An image has its libraries where the linker looks by itself.
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(map(str, bundled.libraries)))
    return root


def test_every_backend_of_ours_and_the_stub_of_this_python_are_laid_out(tmp_path):
    installation = tritonserver.find()
    added = tritonserver.lay_out_backends(installation, tmp_path / "backends")
    assert added == tritonserver.backend_names()
    assert "onnxruntime" in added
    for name in added:
        assert (tmp_path / "backends" / name / "model.py").is_file()
    stub = tmp_path / "backends" / "python" / tritonserver.STUB
    assert stub.read_bytes() == installation.stub.read_bytes()
    assert stat.S_IMODE((tmp_path / "backends").stat().st_mode) == 0o700


def test_an_images_own_backend_comes_before_ours_of_the_same_name(image, tmp_path):
    installation = tritonserver.find(image / "bin" / "tritonserver")
    added = tritonserver.lay_out_backends(installation, tmp_path / "backends")
    assert "onnxruntime" not in added
    assert (tmp_path / "backends" / "onnxruntime").resolve() == image / "backends" / "onnxruntime"


@pytest.mark.server
def test_a_server_laid_out_like_an_image_serves(image, repository):
    binary = image / "bin" / "tritonserver"
    with launch(["doubling", "echo"], repositories=[repository], binary=binary) as server:
        assert server.models == ("doubling", "echo")


def test_python_and_libraries_come_first_for_the_stub(monkeypatch):
    monkeypatch.setenv("PATH", "/elsewhere/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere/lib")
    variables = tritonserver.environment(tritonserver.find())
    assert variables["PATH"] == f"{sys.prefix}/bin:/elsewhere/bin"
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"
    folders = variables["LD_LIBRARY_PATH"].split(":")
    assert folders[0].endswith("nvidia_pytriton.libs")
    assert list(Path(folders[1]).glob("libpython3*.so*"))
    assert folders[2:] == ["/elsewhere/lib"]


def test_a_binary_without_a_python_backend_is_refused(tmp_path):
    binary = tmp_path / "bin" / "tritonserver"
    binary.parent.mkdir()
    binary.touch(mode=0o755)
    with pytest.raises(LaunchError, match="has no Python backend"):
        tritonserver.find(binary)


def test_a_binary_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LaunchError, match="is not an executable file"):
        tritonserver.find(tmp_path / "bin" / "tritonserver")


def test_a_binary_that_cannot_run_is_refused(tmp_path):
    binary = tmp_path / "tritonserver"
    binary.write_bytes(b"no program")
    binary.chmod(0o755)
    installation = tritonserver.Installation(binary, backends=tmp_path, stub=tmp_path)
    with pytest.raises(LaunchError, match="does not run"):
        tritonserver.options(installation)


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tritonserver.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match=r"pip install --no-deps nvidia-pytriton==0\.7\.0"):
        tritonserver.find()
