"""Starts one Triton server with our models and backends, on the loopback interface by default.

`python -m serving.launcher` from a shell, `launch()` from tests, the demo and benchmarks. Finding
the binary, choosing models, reading the log and cleaning up stand in modules of their own; this one
joins them and waits until every model answers. `docs/serving.md` has the options and the limits.
"""

import argparse
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from serving import model_selection, tritonserver
from serving.environment import check_numpy
from serving.errors import LaunchError
from serving.mllm.runtime_folder import VARIABLE as RUNTIME_FOLDER
from serving.model_config import REPOSITORIES, ModelConfig, comma_separated
from serving.server_log import ServerLog

LOOPBACK = "127.0.0.1"

EXIT_TIMEOUT_S = 30
"""Seconds a stopping server gives the requests in flight; longer than one request takes."""

_KILL_AFTER_S = EXIT_TIMEOUT_S + 15
"""Seconds until a server that does not stop is killed; unloading the models takes a few."""

SHM_BYTES = 16 << 20
"""First size, and step of growth, of a Python instance's shared memory; taken at once, not when it
is used. Triton's own 1 MiB would not hold the largest tensor, 3 x 1024 x 1024 float32 = 12.6 MB."""

STUB_TIMEOUT_S = {"mllm": 600}
"""Seconds a model of the backend may take to load; `mllm` reads 14 GB of weights at full size."""

DEFAULT_STUB_TIMEOUT_S = 180
"""The same for other backends; importing torch from a busy disk takes a minute."""

THREAD_POOL_SIZE = 160
"""Threads in the server for calls that one instance of a Python model makes. A call holds one until
its callee is done; further calls wait their turn, which ends because a callee that calls on has
threads of its own and no model calls itself."""

GRPC_INFER_THREADS = 16
"""gRPC handlers where the server has the option (25.x on); its own 2 queue up large requests."""


@dataclass(frozen=True)
class Tls:
    """Certificates for the gRPC endpoint, PEM files."""

    cert: Path
    """Certificate chain of the server."""
    key: Path
    """Private key of the server."""
    ca: Path | None = None
    """Root of the client certificates to ask for; None: clients need no certificate."""


@dataclass(frozen=True)
class Endpoint:
    """One listening socket of the server."""

    option: str
    """The launcher's option that sets the port."""
    address: str
    """Address to bind."""
    port: int
    """Port to bind."""

    @property
    def netloc(self) -> str:
        """`host:port` for a client on this machine."""
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.address, self.address)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class Server:
    """A started server; `launch` makes it, leaving its `with` block stops it."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        endpoints: dict[str, Endpoint],
        models: tuple[str, ...],
        on_log: Callable[[str], None] | None,
        on_loaded: Callable[[str, float], None] | None,
    ) -> None:
        self.grpc_url = endpoints["grpc"].netloc
        """`host:port`, as `tritonclient.grpc` takes it."""
        self.http_url = endpoints["http"].netloc
        """`host:port`, as `tritonclient.http` takes it."""
        self.metrics_url = f"http://{endpoints['metrics'].netloc}/metrics"
        """Address of the Prometheus metrics."""
        self.models = models
        """Names of the models served."""
        self.log = ServerLog()
        """What the server wrote so far."""
        self._process = process
        self._started = time.monotonic()
        self._on_log, self._on_loaded = on_log, on_loaded
        self._relay = threading.Thread(target=self._read_log, name="server-log", daemon=True)
        self._relay.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the server process was started."""
        return time.monotonic() - self._started

    def poll(self) -> int | None:
        """Exit status of the server, None while it runs."""
        return self._process.poll()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until every model answers.

        Raises:
            LaunchError: A model failed, the server ended, or time is up.
        """
        waiting = list(self.models)
        while True:
            if self.poll() is not None:
                self._relay.join()
                raise LaunchError(self.log.failure())
            if self._answers("/v2/health/ready"):
                waiting = [n for n in waiting if not self._answers(f"/v2/models/{n}/ready")]
                if not waiting:
                    return
            if self.elapsed_s > timeout_s:
                late = [name for name in waiting if name not in self.log.loaded]
                raise LaunchError(
                    f"not ready after {timeout_s:g} s (--timeout-s); still loading: "
                    f"{', '.join(late) or 'none, but the server does not answer'}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server, all its processes and files; returns when they are gone."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._relay.join(timeout=5)

    def kill(self) -> None:
        """End a server that is stopping too slowly; requests in flight are lost."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def _answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection(self.http_url, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                loaded = self.log.add(line.rstrip("\n"))
                if self._on_log:
                    self._on_log(line.rstrip("\n"))
                if loaded in self.models and self._on_loaded:
                    self._on_loaded(loaded, self.elapsed_s)


def launch(
    models: Iterable[str] | None = None,
    *,
    repositories: Sequence[Path] = REPOSITORIES,
    address: str = LOOPBACK,
    grpc_port: int = 0,
    http_port: int = 0,
    metrics_port: int = 0,
    tls: Tls | None = None,
    binary: Path | None = None,
    timeout_s: float = 600,
    extra_options: Sequence[str] = (),
    on_log: Callable[[str], None] | None = None,
    on_loaded: Callable[[str, float], None] | None = None,
) -> Server:
    """Start a server and wait until every model is ready.

        with launch(["medisee"]) as server:
            client = tritonclient.grpc.InferenceServerClient(server.grpc_url)

    Args:
        models: Names of models to serve, with all they need; None serves all.
        repositories: Folders of model folders.
        address: Address to bind. With `tls` only gRPC leaves the loopback interface.
        grpc_port: Port of the gRPC endpoint; 0 takes a free one, here and below.
        http_port: Port of the HTTP endpoint.
        metrics_port: Port of the Prometheus metrics.
        tls: Certificates for gRPC; None serves without encryption.
        binary: Another `tritonserver` than the bundled one.
        timeout_s: Seconds until all models must be ready.
        extra_options: Further options of `tritonserver` itself.
        on_log: Called with each line of the server's log, from a thread.
        on_loaded: Called with each loaded model and the seconds so far, from a thread.

    Raises:
        LaunchError: The server could not start; nothing of it is left.
    """
    try:
        check_numpy()
    except RuntimeError as error:
        raise LaunchError(str(error)) from error
    installation = tritonserver.find(binary)
    configs = model_selection.select([path.resolve() for path in repositories], models)
    model_selection.check_files(configs.values())
    plain = LOOPBACK if tls else address  # Triton has no TLS for HTTP and metrics
    endpoints = _endpoints(
        grpc=Endpoint("--grpc-port", address, grpc_port),
        http=Endpoint("--http-port", plain, http_port),
        metrics=Endpoint("--metrics-port", plain, metrics_port),
    )
    shm_prefix = f"saymask-{os.getpid()}-{secrets.token_hex(4)}-"
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="saymask-"))  # mode 0700
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        added = tritonserver.lay_out_backends(installation, folder / "backends")
        command = [
            str(installation.binary),
            *(f"--model-repository={path.resolve()}" for path in repositories),
            *_model_options(configs, explicit=models is not None),
            *_endpoint_options(endpoints, tls),
            *_backend_options(installation, folder / "backends", added, shm_prefix),
            *_version_options(installation),
            f"--id={server_name(configs.values())}",
            *extra_options,
        ]
        # -I -S: the standard library is enough, and starts quicker without site-packages.
        script = str(Path(__file__).with_name("supervisor.py"))
        supervisor = [sys.executable, "-I", "-S", script]
        process = subprocess.Popen(
            [*supervisor, str(_KILL_AFTER_S), shm_prefix, str(folder), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={
                RUNTIME_FOLDER: str(folder / "runtime"),
                **tritonserver.environment(installation),
                "TMPDIR": str(folder),  # temporary files of the models: gone with the folder
            },
            start_new_session=True,  # Ctrl-C reaches the launcher alone, which stops the server
        )
        undo.pop_all()  # from here on the supervisor removes the folder
    server = Server(process, endpoints, tuple(configs), on_log, on_loaded)
    try:
        server.wait_until_ready(timeout_s)
    except BaseException:
        server.stop()
        raise
    return server


def server_name(configs: Iterable[ModelConfig]) -> str:
    """Name the server tells its clients: "saymask-demo" for weights of the demo profile alone."""
    manifests = [model_selection.manifest(config) for config in configs]
    profiles = {manifest["profile"] for manifest in manifests if "profile" in manifest}
    return "-".join(["saymask", *(profiles if len(profiles) == 1 else ())])


def _endpoints(**wanted: Endpoint) -> dict[str, Endpoint]:
    """Check that ports are free and choose those given as 0."""
    found: dict[str, Endpoint] = {}
    with ExitStack() as held:  # all at once, so that no two get the same port
        for name, endpoint in wanted.items():
            family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
            listener = held.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((endpoint.address, endpoint.port))
            except OSError as error:
                raise LaunchError(
                    f"port {endpoint.port} of {endpoint.address} cannot be used "
                    f"({error.strerror}): give {endpoint.option} another one, 0 for any free one"
                ) from error
            except OverflowError:
                raise LaunchError(
                    f"{endpoint.option} {endpoint.port} is no port: expected 0 to 65535"
                ) from None
            port = listener.getsockname()[1]
            found[name] = Endpoint(endpoint.option, endpoint.address, port)
    return found


def _model_options(names: Iterable[str], explicit: bool) -> list[str]:
    options = ["--model-control-mode=none"]
    if explicit:
        options = ["--model-control-mode=explicit", *(f"--load-model={name}" for name in names)]
    return [
        *options,
        # The configurations are complete; completion would start every stub twice.
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
    ]


def _endpoint_options(endpoints: dict[str, Endpoint], tls: Tls | None) -> list[str]:
    options = []
    for name, endpoint in endpoints.items():
        options += [f"--{name}-address={endpoint.address}", f"--{name}-port={endpoint.port}"]
    # Loading models and registering shared memory are the ways in that Triton's worst security
    # reports name; a key that nobody knows closes both. Message sizes: Triton's own limit is 2 GiB.
    key = secrets.token_hex(16)
    for closed in ("model-repository", "shared-memory"):
        options += [
            f"--http-restricted-api={closed}:key={key}",
            f"--grpc-restricted-protocol={closed}:key={key}",
        ]
    if tls:
        for path in filter(None, (tls.cert, tls.key, tls.ca)):
            if not path.is_file():
                raise LaunchError(f"{path} of the TLS options is not a file")
        options += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={tls.cert.resolve()}",
            f"--grpc-server-key={tls.key.resolve()}",
        ]
        if tls.ca:
            options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.ca.resolve()}"]
    return options


def _backend_options(
    installation: tritonserver.Installation, folder: Path, added: Iterable[str], shm_prefix: str
) -> list[str]:
    options = [f"--backend-directory={folder}"]
    if installation.caches and installation.caches.is_dir():
        options.append(f"--cache-directory={installation.caches}")
    # A Python-based backend reads these under its own name, not under `python`.
    for backend in ("python", *added):
        settings = {
            "shm-region-prefix-name": f"{shm_prefix}{backend}-",
            "shm-default-byte-size": SHM_BYTES,
            "shm-growth-byte-size": SHM_BYTES,
            "stub-timeout-seconds": STUB_TIMEOUT_S.get(backend, DEFAULT_STUB_TIMEOUT_S),
            "thread-pool-size": THREAD_POOL_SIZE,
        }
        options += [f"--backend-config={backend},{key}={v}" for key, v in settings.items()]
    return options


def _version_options(installation: tritonserver.Installation) -> list[str]:
    options = []
    if not Path("/dev/nvidiactl").exists():
        options.append("--allow-gpu-metrics=false")
    if "--grpc-infer-thread-count" in tritonserver.options(installation):
        options.append(f"--grpc-infer-thread-count={GRPC_INFER_THREADS}")
    return options


class _StopRequestedError(BaseException):
    """A signal asked the launcher to end."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.launcher",
        description="Start a Triton server with saymask's models.",
    )
    parser.add_argument(
        "--models", default="", help="comma-separated models, with all they need; default: all"
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder of models, may be repeated; default: model_repository and ensembles",
    )
    parser.add_argument(
        "--address", default=LOOPBACK, help="address to bind (default: %(default)s)"
    )
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, help="0: any free one (default: %(default)s)"
        )
    parser.add_argument("--tls-cert", type=Path, help="certificate of the gRPC endpoint, PEM")
    parser.add_argument("--tls-key", type=Path, help="its private key, PEM")
    parser.add_argument("--tls-ca", type=Path, help="ask clients for certificates of this root")
    parser.add_argument(
        "--tritonserver", type=Path, metavar="PATH", help="another server binary than the bundled"
    )
    parser.add_argument(
        "--timeout-s", type=float, default=600, help="until models are ready (default: %(default)s)"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="option of tritonserver itself, such as --option=--log-verbose=1; may be repeated",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server until it ends or a signal asks for its end; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if bool(options.tls_cert) != bool(options.tls_key) or (options.tls_ca and not options.tls_key):
        parser.error("TLS needs --tls-cert and --tls-key; --tls-ca adds client certificates")
    tls = Tls(options.tls_cert, options.tls_key, options.tls_ca) if options.tls_cert else None
    if options.address not in (LOOPBACK, "::1", "localhost") and tls is None:
        _tell(f"warning: {options.address} is open to the network, without encryption or log-in")

    def request_stop(number: int, frame: FrameType | None) -> None:
        raise _StopRequestedError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    _say("starting; the language model takes half a minute to a minute")
    try:
        server = launch(
            comma_separated(options.models) or None,
            repositories=options.model_repository or REPOSITORIES,
            address=options.address,
            grpc_port=options.grpc_port,
            http_port=options.http_port,
            metrics_port=options.metrics_port,
            tls=tls,
            binary=options.tritonserver,
            timeout_s=options.timeout_s,
            extra_options=options.option,
            on_log=_tell,
            on_loaded=lambda name, elapsed_s: _say(f"model {name} loaded after {elapsed_s:.1f} s"),
        )
    except LaunchError as error:
        _tell(f"error: {error}")
        return 1
    except _StopRequestedError:
        return 0
    try:
        _say(
            f"ready: grpc://{server.grpc_url} http://{server.http_url} metrics "
            f"{server.metrics_url} ({len(server.models)} models, {server.elapsed_s:.1f} s)"
        )
        _say(f'ask: .venv/bin/saymask segment IMAGE "QUESTION" --url {server.grpc_url}')
        while server.poll() is None:
            time.sleep(0.5)
        _tell(f"error: the server ended by itself with status {server.poll()}")
        return 1
    except _StopRequestedError:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.kill())  # asked twice: at once
        _say(f"stopping, which takes up to {_KILL_AFTER_S} s; Ctrl-C again ends it at once")
        server.stop()
        _say("stopped")
        return 0
    finally:
        server.stop()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
