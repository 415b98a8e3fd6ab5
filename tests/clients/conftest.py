"""A real Triton server over two small models with the public tensors, once for all tests here."""

import os
import socket
import subprocess
import time
from pathlib import Path

import grpc
import pytest
from serving import tritonserver

FIXTURE_MODELS = Path(__file__).parent / "fixture_models"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server_url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    installation = tritonserver.find()
    tritonserver.lay_out_backends(installation, folder / "backends")
    port = free_port()
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [
            installation.binary,
            f"--model-repository={FIXTURE_MODELS}",
            f"--backend-directory={folder / 'backends'}",
            f"--grpc-port={port}",
            "--grpc-address=127.0.0.1",
            "--allow-http=false",
            "--allow-metrics=false",
        ],
        env=tritonserver.environment(installation),
        stdout=log,
        stderr=log,
    )
    url = f"127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            with grpc.insecure_channel(url) as channel:
                try:
                    grpc.channel_ready_future(channel).result(timeout=0.3)
                    break
                except grpc.FutureTimeoutError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        pytest.fail((folder / "log").read_text()[-3000:])
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)
