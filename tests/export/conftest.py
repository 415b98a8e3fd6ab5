import importlib
import importlib.util
import sys
import types

import pytest
import torch


@pytest.fixture(scope="session")
def segment_anything():
    """The modules of segment-anything that need torch alone.

    Its __init__ imports torchvision, which nothing here needs.
    """
    spec = importlib.util.find_spec("segment_anything")
    package = types.ModuleType("segment_anything")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["segment_anything"] = package
    yield types.SimpleNamespace(
        build_sam=importlib.import_module("segment_anything.build_sam"),
        modeling=importlib.import_module("segment_anything.modeling"),
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "segment_anything"]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def randomize():
    """Fills a network so that no parameter is zero and no norm is the identity."""

    def fill(module, seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                spread = 0.1 if parameter.ndim == 1 else 0.04
                parameter.normal_(std=spread, generator=generator)
                if "norm" in name and name.endswith("weight"):
                    parameter += 1
        return module.eval()

    return fill
