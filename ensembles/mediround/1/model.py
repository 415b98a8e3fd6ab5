"""Triton entry point; the pipeline is serving/mediround/pipeline.py."""

from serving.mediround.pipeline import MediRound
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `MediRound`."""

    pipeline = MediRound
