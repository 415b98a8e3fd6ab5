"""A real Triton server over two small models with the public tensors, once for all tests here."""

from pathlib import Path

import pytest
import saymask

from serving.launcher import launch

FIXTURE_MODELS = Path(__file__).parent / "fixture_models"


@pytest.fixture(scope="session")
def server():
    # Named as a server of the demo's weights, of which clients tell.
    with launch(repositories=[FIXTURE_MODELS], extra_options=["--id=saymask-demo"]) as server:
        yield server


@pytest.fixture(scope="session")
def server_url(server):
    return server.grpc_url


@pytest.fixture(scope="session")
def client(server_url):
    with saymask.Client(server_url, timeout_s=20) as client:
        yield client
