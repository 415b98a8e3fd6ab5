"""Triton entry point; the pipeline is serving/checked_request.py."""

from serving.checked_request import CheckedRequest
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `CheckedRequest`."""

    pipeline = CheckedRequest
