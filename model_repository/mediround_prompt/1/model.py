"""Triton entry point; the pipeline is serving/prompts.py."""

from serving.prompts import MediroundPrompt
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `MediroundPrompt`."""

    pipeline = MediroundPrompt
