"""Triton entry point; the pipeline is serving/context_cache.py."""

from serving.context_cache import ContextCache
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `ContextCache`."""

    pipeline = ContextCache
