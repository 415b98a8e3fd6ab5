"""Triton entry point; the pipeline is serving/organseg_features.py."""

from serving.organseg_features import OrgansegImageTokens
from serving.python_model import PythonModel


class TritonPythonModel(PythonModel):
    """Serves `OrgansegImageTokens`."""

    pipeline = OrgansegImageTokens
