"""Real Triton servers over small models with the public tensors, once for all tests here."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import saymask

from serving.launcher import launch

FIXTURE_MODELS = Path(__file__).parent / "fixture_models"
FIXTURE_CONVERSATIONS = Path(__file__).parent / "fixture_conversations"


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


@dataclass
class Conversations:
    """The model of conversations, in a folder of its own beside the store it writes."""

    folder: Path

    @property
    def repository(self):
        return self.folder / "repository"

    def log(self, **wanted):
        """What came or was applied so far, where it has these values."""
        path = self.folder / "store" / "log"
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else ())
        return [line for line in lines if wanted.items() <= line.items()]

    def forget(self, conversation_id):
        (self.folder / "store" / f"{conversation_id}.pickle").unlink()


@pytest.fixture(scope="session")
def conversations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conversations")
    shutil.copytree(FIXTURE_CONVERSATIONS, folder / "repository")
    return Conversations(folder)


@pytest.fixture(scope="session")
def conversation_url(conversations):
    with launch(
        repositories=[conversations.repository], extra_options=["--id=saymask-demo"]
    ) as server:
        yield server.grpc_url


@pytest.fixture
def talker(conversation_url):
    with saymask.Client(conversation_url, timeout_s=20) as client:
        yield client
