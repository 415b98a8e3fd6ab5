"""Starting and stopping the real server: ports, models, certificates, and what is left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serving import tritonserver
from serving.errors import LaunchError
from serving.launcher import Tls, launch, main
from serving.supervisor import LOOK_INTERVAL_S
from tests.processes import below

pytestmark = pytest.mark.server

# Leaves behind what a careless engine does: a process of its own session, and shared memory.
CARELESS = """
import mmap, os, subprocess

class Pipeline:
    def __init__(self, version_folder):
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        path = "/dev/shm/" + (version_folder / "region.txt").read_text()
        with open(path, "wb+") as file:
            file.truncate(4096)
            self.region = mmap.mmap(file.fileno(), 4096)

    def __call__(self, prompt: str):
        return {"text": prompt}
"""

CONFIG = """
backend: "python"
input [{ name: "prompt" data_type: TYPE_STRING dims: [ 1 ] }]
output [{ name: "text" data_type: TYPE_STRING dims: [ 1 ] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""

REGION = f"careless-{os.getpid()}"


@pytest.fixture
def careless(tmp_path: Path) -> Path:
    version = tmp_path / "models" / "careless" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (version / "region.txt").write_text(REGION)
    (version / "model.py").write_text(
        "from serving.python_model import PythonModel\n"
        f"{CARELESS}\n\nclass TritonPythonModel(PythonModel):\n    pipeline = Pipeline\n"
    )
    return tmp_path / "models"


def processes_with(text: str) -> list[str]:
    """Command lines of running processes that have the text in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def shm_files(pid: int) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith((f"saymask-{pid}-", REGION))]


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


class Launched:
    """The launcher in a process of its own, with everything it starts marked and in one folder."""

    def __init__(self, tmp_path: Path, *options: str) -> None:
        self.mark = f"LAUNCH_MARK={tmp_path}"
        self.temporary = tmp_path / "temporary"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.launcher", *options]
            + [f"--{name}-port=0" for name in ("grpc", "http", "metrics")],
            env=os.environ | {"LAUNCH_MARK": str(tmp_path), "TMPDIR": str(self.temporary)},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def lines_until_ready(self) -> list[str]:
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip())
            if line.startswith("ready:"):
                return lines
        raise AssertionError(f"the launcher ended after {lines}")

    def nothing_left(self) -> bool:
        left = processes_with(self.mark) + shm_files(self.process.pid)
        return not left and not list(self.temporary.iterdir())


@pytest.fixture
def launched(careless: Path, tmp_path: Path):
    running = Launched(tmp_path, f"--model-repository={careless}")
    yield running
    running.process.kill()
    running.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_leaves_nothing(launched, number):
    lines = launched.lines_until_ready()
    assert lines[0].startswith("starting;")
    assert lines[1].startswith("model careless loaded after ")
    assert lines[2].startswith("ready: grpc://127.0.0.1:")
    assert any("sleep 600" in line for line in processes_with(launched.mark))
    assert len(shm_files(launched.process.pid)) == 2
    launched.process.send_signal(number)
    assert launched.process.wait(timeout=30) == 0
    assert launched.nothing_left()


def test_a_launcher_that_is_killed_takes_the_server_with_it(launched):
    launched.lines_until_ready()
    launched.process.kill()
    launched.process.wait()
    assert wait_for(launched.nothing_left, 20)


def test_a_server_that_dies_ends_the_launcher_with_an_error(launched):
    launched.lines_until_ready()
    [pid] = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and is_server_of(entry, launched.mark)
    ]
    os.kill(pid, signal.SIGKILL)
    assert launched.process.wait(timeout=30) == 1
    assert wait_for(launched.nothing_left, 5)


def test_a_server_that_loses_the_process_of_a_model_ends_and_says_which(repository):
    lines: list[str] = []
    with launch(["doubling"], repositories=[repository], on_log=lines.append) as server:
        (stub,) = [p for p in below(server._process.pid) if "/doubling/1/model" in p.cmdline()[1]]
        time.sleep(2 * LOOK_INTERVAL_S)  # it has been seen alive
        stub.kill()
        assert wait_for(lambda: server.poll() is not None, 30)
        assert server.poll() != 0
    (line,) = [line for line in lines if line.startswith("the server lost its process")]
    assert line.split()[5] == str(stub.pid)
    assert "/doubling/1/model" in line


def test_a_second_signal_does_not_wait_for_requests_in_flight(repository, tmp_path):
    launched = Launched(tmp_path, f"--model-repository={repository}", "--models=slow")
    try:
        url = launched.lines_until_ready()[-1].split()[1].removeprefix("grpc://")
        with triton.InferenceServerClient(url) as client:
            inputs = [
                triton.InferInput("seconds", [1], "FP32"),
                triton.InferInput("witness", [1], "BYTES"),
            ]
            inputs[0].set_data_from_numpy(np.array([60], np.float32))
            inputs[1].set_data_from_numpy(np.array([b""], dtype=object))
            client.async_infer("slow", inputs, lambda result, error: None)
            time.sleep(0.5)
            launched.process.send_signal(signal.SIGTERM)
            time.sleep(2)
            assert launched.process.poll() is None
            launched.process.send_signal(signal.SIGTERM)
            assert launched.process.wait(timeout=10) == 0
        assert launched.nothing_left()
    finally:
        launched.process.kill()
        launched.process.wait()


def is_server_of(entry: Path, mark: str) -> bool:
    try:
        first = (entry / "cmdline").read_bytes().partition(b"\0")[0]
        return (
            first.endswith(b"/tritonserver") and mark.encode() in (entry / "environ").read_bytes()
        )
    except OSError:
        return False


def test_a_subset_brings_the_steps_and_the_callees_it_needs(repository):
    loaded = []
    with launch(
        ["chain"], repositories=[repository], on_loaded=lambda name, s: loaded.append(name)
    ) as server:
        assert server.models == ("calling", "chain", "echo", "failing")
        assert sorted(loaded) == ["calling", "chain", "echo", "failing"]
        with triton.InferenceServerClient(server.grpc_url) as client:
            assert not client.is_model_ready("slow")
            # Explicit control is for the launcher alone.
            with pytest.raises(InferenceServerException, match="key"):
                client.load_model("slow")
            with pytest.raises(InferenceServerException, match="key"):
                client.register_system_shared_memory("stolen", "/anything", 64)
    assert not shm_files(os.getpid())


def test_a_failing_model_is_named_with_its_own_error_and_nothing_else(tmp_path, repository):
    models = tmp_path / "models"
    shutil.copytree(repository / "chain", models / "chain")
    shutil.copytree(repository / "calling", models / "calling")
    shutil.copytree(repository / "failing", models / "failing")
    shutil.copytree(repository / "echo", models / "echo")
    config = models / "failing" / "config.pbtxt"
    config.write_text(config.read_text().replace('"prompt"', '"question"'))
    with pytest.raises(LaunchError) as caught:
        launch(repositories=[models])
    assert str(caught.value) == (
        "model 'failing' failed: ValueError: Pipeline.__call__ takes prompt; the inputs of model "
        "'failing' are question"
    )
    assert not shm_files(os.getpid())


def test_an_onnx_graph_unlike_its_configuration_fails_with_both(tmp_path, repository):
    shutil.copytree(repository / "transposing", tmp_path / "models" / "transposing")
    config = tmp_path / "models" / "transposing" / "config.pbtxt"
    config.write_text(config.read_text().replace("TYPE_FP32", "TYPE_FP16", 1))
    with pytest.raises(LaunchError, match=r"'x' is tensor\(float\), config.pbtxt says TYPE_FP16"):
        launch(repositories=[tmp_path / "models"])


def test_a_slow_start_names_the_models_it_waits_for(tmp_path, repository):
    version = tmp_path / "models" / "sleeper" / "1"
    shutil.copytree(repository / "failing" / "1", version)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    source = (version / "model.py").read_text()
    (version / "model.py").write_text(f"{source}\ntime.sleep(4)\n")
    with pytest.raises(LaunchError, match=r"not ready after 1 s .*still loading: sleeper"):
        launch(repositories=[tmp_path / "models"], timeout_s=1)


@pytest.mark.parametrize("option", ["grpc", "http", "metrics"])
def test_a_port_in_use_is_named_with_its_option(repository, option, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"grpc": 0, "http": 0, "metrics": 0, option: port}
        options = [f"--{name}-port={number}" for name, number in ports.items()]
        assert main([f"--model-repository={repository}", *options]) == 1
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be used" in said
    assert f"--{option}-port" in said


def test_another_binary_is_used_with_its_backends_and_ours(repository):
    binary = tritonserver.find().binary
    with launch(["doubling"], repositories=[repository], binary=binary) as server:
        assert server.models == ("doubling",)


def test_numpy_2_is_refused_before_the_server_starts(repository):
    script = (
        "import sys, numpy; numpy.__version__ = '2.1.0'; from serving.launcher import main; "
        f"sys.exit(main(['--model-repository={repository}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "NumPy 2.1.0" in done.stderr
    assert 'pip install "numpy>=1.26,<2"' in done.stderr
    assert "Triton server" not in done.stderr


def openssl(*options: str, folder: Path) -> None:
    subprocess.run(["openssl", *options], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root `ca`, and certificates `server` and `client` signed by it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    root = ["req", "-x509", *new_key, "-subj", "/CN=root", "-keyout", "ca.key", "-out", "ca.pem"]
    openssl(*root, folder=folder)
    for name in ("server", "client"):
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
        openssl(
            *("req", "-x509", *new_key, "-subj", f"/CN={name}", *signed),
            *("-addext", "basicConstraints=critical,CA:false"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
            folder=folder,
        )
    return folder


def test_tls_with_client_certificates_lets_in_only_those_who_have_one(repository, certificates):
    tls = Tls(certificates / "server.pem", certificates / "server.key", certificates / "ca.pem")
    trusted = {"ssl": True, "root_certificates": str(certificates / "ca.pem")}
    own = {
        "private_key": str(certificates / "client.key"),
        "certificate_chain": str(certificates / "client.pem"),
    }
    with launch(["failing"], repositories=[repository], tls=tls) as server:
        with triton.InferenceServerClient(server.grpc_url, **trusted, **own) as client:
            assert client.is_model_ready("failing", client_timeout=10)
        for refused in (trusted, {}):
            with (
                triton.InferenceServerClient(server.grpc_url, **refused) as client,
                pytest.raises(InferenceServerException),
            ):
                client.is_model_ready("failing", client_timeout=3)


def test_with_tls_the_unencrypted_endpoints_stay_on_the_loopback_interface(
    repository, certificates
):
    tls = Tls(certificates / "server.pem", certificates / "server.key")
    with launch(["failing"], repositories=[repository], tls=tls, address="0.0.0.0") as server:
        bound = {line.split(" at ")[-1] for line in server.log.lines if '] "Started ' in line}
        hosts = {place.strip('"').rpartition(":")[0] for place in bound}
        ports = {place.strip('"') for place in bound if place.startswith("0.0.0.0")}
        assert hosts == {"0.0.0.0", "127.0.0.1"}
        assert ports == {f"0.0.0.0:{server.grpc_url.rpartition(':')[2]}"}
