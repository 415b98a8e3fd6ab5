"""Triton entry point; the pipeline is serving/prompts.py."""

from serving.prompts import MediseePrompt
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `MediseePrompt`."""

    pipeline = MediseePrompt
