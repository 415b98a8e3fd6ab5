"""Checks of the Python environment that Triton's Python stub runs in.

Both faults below are silent in the stub itself: with NumPy 2 outputs have 0 bytes, and with another
Python first on `PATH` the models run with that Python's packages.
"""

import os
import sys

import numpy as np

PREFIX_VARIABLE = "SAYMASK_PREFIX"
"""Environment variable in which the launcher tells the stub the environment it should run in."""


def check_numpy() -> None:
    """Refuse NumPy 2.

    Raises:
        RuntimeError: NumPy is 2 or newer.
    """
    if int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeError(
            f"NumPy {np.__version__} in {sys.prefix}: the Python stub of Triton 24.10 sends empty "
            f'tensors with NumPy 2. Install NumPy 1.26 there: pip install "numpy>=1.26,<2"'
        )


def check_stub() -> None:
    """Check, inside a stub, that it runs in the launcher's environment and that NumPy fits.

    Raises:
        RuntimeError: One of the two does not hold.
    """
    expected = os.environ.get(PREFIX_VARIABLE)
    if expected and os.path.realpath(expected) != os.path.realpath(sys.prefix):
        raise RuntimeError(
            f"the Python stub runs in {sys.prefix}, the server was started from {expected}: "
            f"{expected}/bin must come first on PATH and its Python must be the stub's version"
        )
    check_numpy()
