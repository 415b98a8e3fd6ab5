"""The benchmark itself, at its smallest, on the real server; speed is not judged here."""

import json
import subprocess
import sys

import pytest

from benchmarks.hops import Hops
from benchmarks.ratios import CONCURRENCY
from serving.model_config import MODEL_REPOSITORY, ROOT

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not (MODEL_REPOSITORY / "mllm" / "1" / "manifest.json").exists(),
        reason="the demo is not exported: python -m export --profile demo",
    ),
]


def test_the_last_line_is_one_object_of_figures():
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--only", "medisee.demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == {"medisee.demo"}
    demo = figures["medisee.demo"]

    for kind in ("fresh", "repeated"):
        assert {f"throughput_{kind}_c{c}" for c in CONCURRENCY} <= set(demo)
        assert {f"speedup_{kind}_c{c}" for c in CONCURRENCY} <= set(demo)
        hops = sum(demo[f"hop_ms_{kind}_{hop}"] for hop in Hops.__dataclass_fields__)
        # One request: its hops add up.
        assert hops == pytest.approx(demo[f"latency_ms_{kind}"], rel=0.1)
    assert demo["mask_agreement"] > 0.99
    assert demo["computed_tokens_repeated"] < demo["computed_tokens_fresh"]
    assert demo["server_memory_mib"] > demo["loop_memory_mib"] > 0
    assert demo["loop_threads"] >= 1
