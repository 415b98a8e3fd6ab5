"""Who may import whom, read from the sources: nothing is imported to find out."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "clients/saymask": {"saymask"},
    "serving": {"saymask", "serving"},
    "model_repository": {"saymask", "serving"},
    "ensembles": {"saymask", "serving", "ensembles"},
    "training": {"saymask", "serving", "training"},
    "export": {"saymask", "serving", "training", "export"},
    "benchmarks": {"saymask", "serving", "training", "export", "benchmarks"},
    "deploy": set(),
}
"""Folder -> our own packages that its code may import."""

OURS = {"saymask", "clients", "tests", *MAY_IMPORT}
NEVER_IN_THE_CLIENT = {"torch", "onnxruntime", "transformers", "vllm", "scipy", "cv2"}
OPTIONAL_IN_THE_CLIENT = {"pydicom", "nibabel", "av"}


def sources(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def imported(tree):
    """Top-level packages of every import statement, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:  # a relative one stays inside
            yield node.module.split(".")[0]


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way_only(folder):
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in imported(parsed(path))
        if name in OURS - MAY_IMPORT[folder]
    }
    assert not wrong


def test_every_folder_with_code_has_a_rule():
    tracked = {path.parts[len(ROOT.parts)] for path in ROOT.glob("*/**/*.py")}
    hidden = {name for name in tracked if name.startswith(".")}
    built = {"build", "runs", "dist"}
    named = {folder.split("/")[0] for folder in MAY_IMPORT}
    assert tracked - hidden - built <= named | {"tests"}


def test_nothing_in_the_client_names_a_heavy_package():
    for path in sources("clients/saymask"):
        assert not NEVER_IN_THE_CLIENT & set(imported(parsed(path))), path


def test_the_client_imports_file_formats_only_where_it_reads_them():
    def at_module_level(tree):
        for node in tree.body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue  # for type checkers; never run
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                yield from imported(node)

    for path in sources("clients/saymask"):
        assert not OPTIONAL_IN_THE_CLIENT & set(at_module_level(parsed(path))), path


def modules_after(code):
    script = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_importing_saymask_alone_loads_none_of_its_dependencies():
    loaded = modules_after("import saymask")
    assert not loaded & {"grpc", "PIL", "torch", "onnxruntime", "pydicom", "nibabel", "serving"}


def test_pipelines_of_python_models_load_without_torch():
    loaded = modules_after(
        "import serving.prompts, serving.image_features, serving.launcher, serving.organseg, "
        "serving.organseg_features, serving.context_cache"
    )
    assert not loaded & {"torch", "transformers", "vllm", "onnxruntime"}


def test_heavy_imports_are_not_repeated_by_the_model_declarations():
    for path in sources("model_repository"):
        assert set(imported(parsed(path))) == {"serving"}, path
