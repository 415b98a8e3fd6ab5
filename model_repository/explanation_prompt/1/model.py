"""Triton entry point; the pipeline is serving/prompts.py."""

from serving.prompts import ExplanationPrompt
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `ExplanationPrompt`."""

    pipeline = ExplanationPrompt
