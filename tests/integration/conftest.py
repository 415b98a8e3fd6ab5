"""The real server with every model of all pipelines, once for all tests here."""

import grpc
import pytest
import saymask

from serving.launcher import launch
from tests.integration.probe import Raw, picture

PIPELINES = ["medisee", "medisee_explain", "organseg", "mediround"]


@pytest.fixture(scope="session")
def server():
    with launch(PIPELINES, timeout_s=600) as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    with saymask.Client(server.grpc_url, timeout_s=120, max_in_flight=64) as client:
        yield client


@pytest.fixture(scope="session")
def raw(server):
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield Raw(channel)


@pytest.fixture(scope="session")
def good_answer(client):
    """Asks a good question and checks that the answer is the one it was before."""
    image, prompt = picture(24, 30), "where is the thalamus"
    first = client.segment(image, prompt)

    def ask():
        again = client.segment(image, prompt)
        assert (again.mask != first.mask).mean() < 1e-3
        assert again.score == pytest.approx(first.score, abs=1e-3)

    return ask
