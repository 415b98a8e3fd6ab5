"""The benchmark itself, at its smallest, on the real server; speed is not judged here."""

import json
import subprocess
import sys

import pytest

from benchmarks.hops import Hops
from benchmarks.mixed_load import SYSTEMS
from benchmarks.ratios import CONCURRENCY
from serving.model_config import MODEL_REPOSITORY, ROOT

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not (MODEL_REPOSITORY / "mllm" / "1" / "manifest.json").exists(),
        reason="the demo is not exported: python -m export --profile demo",
    ),
]


def quick_figures(name):
    """Figures of one name, from the last line."""
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--only", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == {name}
    return figures[name]


def test_medisee():
    demo = quick_figures("medisee.demo")
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


def test_mediround():
    demo = quick_figures("mediround.demo")
    for length in (2, 4):
        assert demo[f"speedup_rounds_{length}"] == pytest.approx(
            demo[f"loop_conversation_ms_rounds_{length}"] / demo[f"conversation_ms_rounds_{length}"]
        )
    assert demo["mask_agreement"] > 0.99
    # The first round knows nothing of its picture; the last one has nearly all from before it.
    assert demo["cached_tokens_round_1"] == 0
    assert demo["cached_tokens_round_4"] > demo["computed_tokens_round_4"]
    total = [demo[f"cached_tokens_round_{n}"] + demo[f"computed_tokens_round_{n}"] for n in (1, 4)]
    assert total[1] > total[0]


def test_organseg():
    demo = quick_figures("organseg.demo")
    assert {f"speedup_{kind}_c{c}" for kind in ("fresh", "repeated") for c in CONCURRENCY} <= set(
        demo
    )
    assert demo["mask_agreement"] > 0.99
    # What is refused is not embedded, and a picture is embedded once.
    assert demo["encoder_runs_refused"] <= 1 - demo["refused_share"]
    assert demo["encoder_runs_repeated"] == 0


def test_together():
    demo = quick_figures("together.demo")
    assert demo["memory_three_over_one"] > 1.5
    assert demo["three_engines_memory_mib"] == pytest.approx(
        sum(demo[f"{system}_memory_mib"] for system in SYSTEMS)
    )
    assert demo["throughput_mixed_three_engines"] > 0
    assert {"throughput_mixed", "throughput_separate", "mixed_over_separate"} <= set(demo)
    assert {"mllm_ms_same_adapter", "mllm_ms_alternating", "adapter_switch_ms"} <= set(demo)
