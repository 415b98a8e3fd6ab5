"""Tests that need a CUDA device say so where there is none; `pytest -m gpu` runs them alone."""

import pytest


def pytest_collection_modifyitems(items):
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch  # slow, and most runs need none of it

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
