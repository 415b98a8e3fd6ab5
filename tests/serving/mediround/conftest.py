"""Real Triton servers over the small models, with the pipeline's own configuration."""

import shutil
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from serving import model_config
from serving.launcher import launch
from tests.serving.mediround.client import Chat
from tests.serving.mediround.small_models import MODELS, PROMPTS, WEIGHTS

MODEL = """from serving.python_model import PythonModel
from tests.serving.mediround.small_models import {name}


class TritonPythonModel(PythonModel):
    pipeline = {name}
"""


# A live sequence counts as a request in flight, and the server would wait for it at its end.
OPTIONS = ["--exit-timeout-secs=2"]


def write_repository(
    root: Path, idle_s: float = 600, wait_s: float = 0.0, **parameters: str
) -> Path:
    """The models that `mediround` calls, small, and `mediround` itself.

    `wait_s` is how long the language model takes, `parameters` are the pipeline's.
    """
    for name, model in MODELS.items():
        config = model_config.read(name).proto
        config.backend = "python"
        config.ClearField("parameters")
        if name == "mllm":
            config.parameters["wait_s"].string_value = str(wait_s)
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(text_format.MessageToString(config))
        (root / name / "1" / "model.py").write_text(MODEL.format(name=model.__name__))
    pipeline = model_config.read("mediround")
    config = pipeline.proto
    config.sequence_batching.max_sequence_idle_microseconds = round(idle_s * 1e6)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    (root / "mediround" / "1").mkdir(parents=True)
    (root / "mediround" / "config.pbtxt").write_text(text_format.MessageToString(config))
    shutil.copy(pipeline.folder / "1" / "model.py", root / "mediround" / "1")
    for name in PROMPTS:
        shutil.copytree(model_config.read(name).folder, root / name)
        shutil.copy(WEIGHTS / "tokenizer.model", root / name / "1")
    return root


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    root = write_repository(tmp_path_factory.mktemp("mediround"))
    with launch(repositories=[root], extra_options=OPTIONS) as running:
        yield running


@pytest.fixture(scope="session")
def hasty_server(tmp_path_factory):
    """Three conversations at most, each given up after two seconds."""
    root = write_repository(tmp_path_factory.mktemp("hasty"), idle_s=2, max_conversations="3")
    with launch(repositories=[root], extra_options=OPTIONS) as running:
        yield running


@pytest.fixture
def chat(server):
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield lambda name: Chat(channel, name)
