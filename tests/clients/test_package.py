import json
import subprocess
import sys
from pathlib import Path

import saymask
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

HEAVY = ("torch", "onnxruntime", "pydicom", "nibabel")


def modules_after(code):
    script = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_importing_the_package_and_both_clients_imports_nothing_heavy():
    loaded = modules_after("import saymask; saymask.Client; saymask.aio.Client; saymask.read_image")
    assert not loaded & set(HEAVY)


def test_the_mask_codec_comes_without_grpc():
    assert "grpc" not in modules_after("from saymask import mask_codec")


def test_every_public_name_can_be_imported():
    for name in saymask.__all__:
        assert getattr(saymask, name) is not None
    assert set(saymask.__all__) == {
        *saymask._MODULE_OF_NAME,
        *saymask._MODULES,
        "__version__",
    }


def test_the_package_says_that_it_is_typed():
    assert (Path(saymask.__file__).parent / "py.typed").is_file()


def test_the_pipelines_served_here_have_the_tensors_of_the_real_ones():
    root = Path(__file__).parents[2] / "ensembles"
    for name in ("medisee", "medisee_explain", "organseg"):
        if not (root / name / "config.pbtxt").is_file():
            continue
        ours, real = (
            text_format.Parse(
                (folder / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
            )
            for folder in (Path(__file__).parent / "fixture_models", root)
        )
        for side in ("input", "output"):
            assert tensors(ours, side) == tensors(real, side)
        assert ours.max_batch_size == real.max_batch_size


def tensors(config, side):
    return {t.name: (t.data_type, len(t.dims)) for t in getattr(config, side)}
