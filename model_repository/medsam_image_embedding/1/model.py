"""Triton entry point; the pipeline is serving/image_features.py."""

from serving.image_features import MedsamImageEmbedding
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `MedsamImageEmbedding`."""

    pipeline = MedsamImageEmbedding
