"""Checks of the stub's Python."""

import sys

import numpy as np
import pytest

from serving import environment


def test_this_environment_passes(monkeypatch):
    monkeypatch.setenv(environment.PREFIX_VARIABLE, sys.prefix)
    environment.check_stub()


@pytest.mark.parametrize("version", ["2.0.0", "2.3.1", "10.0"])
def test_numpy_2_is_refused(monkeypatch, version):
    monkeypatch.setattr(np, "__version__", version)
    with pytest.raises(RuntimeError, match=f"NumPy {version} .*pip install"):
        environment.check_stub()


def test_another_python_than_the_launchers_is_refused(monkeypatch):
    monkeypatch.setenv(environment.PREFIX_VARIABLE, "/opt/other")
    with pytest.raises(RuntimeError, match="/opt/other/bin must come first on PATH"):
        environment.check_stub()
