"""A real Triton server over two small models with the public tensors, once for all tests here."""

from pathlib import Path

import pytest
import saymask

from serving.launcher import launch

FIXTURE_MODELS = Path(__file__).parent / "fixture_models"


@pytest.fixture(scope="session")
def server_url():
    with launch(repositories=[FIXTURE_MODELS]) as server:
        yield server.grpc_url


@pytest.fixture(scope="session")
def client(server_url):
    with saymask.Client(server_url, timeout_s=20) as client:
        yield client
