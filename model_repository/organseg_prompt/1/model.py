"""Triton entry point; the pipeline is serving/prompts.py."""

from serving.prompts import OrgansegPrompt
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `OrgansegPrompt`."""

    pipeline = OrgansegPrompt
