"""Triton entry point; the pipeline is serving/image_features.py."""

from serving.image_features import LlavaImageTokens
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `LlavaImageTokens`."""

    pipeline = LlavaImageTokens
