"""Triton entry point; the pipeline is serving/organseg.py."""

from serving.organseg import OrganSegPipeline
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `OrganSegPipeline`."""

    pipeline = OrganSegPipeline
