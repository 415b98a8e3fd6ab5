import pytest

from benchmarks.hops import Hops
from benchmarks.ratios import CONCURRENCY, hop_table, ratios


def figures():
    found = {"loop_throughput": 2.0, "loop_network_ms_mllm": 10.0}
    for kind in ("fresh", "repeated"):
        for concurrency in CONCURRENCY:
            found[f"throughput_{kind}_c{concurrency}"] = 3.0 * concurrency
        for hop in Hops.__dataclass_fields__:
            found[f"hop_ms_{kind}_{hop}"] = 15.0
    found |= {"latency_ms_fresh": 100.0, "latency_ms_repeated": 40.0}
    found |= {"sam_branch_ms": 60.0, "language_branch_ms": 30.0, "decoder_ms": 20.0}
    found["sam_branch_network_ms"] = 55.0
    for kind in ("fresh", "repeated"):
        found[f"network_ms_{kind}_medisee_router"] = 1.0
        found[f"network_ms_{kind}_medisee_box_decoder"] = 1.0
        found[f"network_ms_{kind}_medisee_mask_decoder"] = 13.0
    found["network_ms_fresh_medsam_image_encoder"] = 20.0
    found["network_ms_fresh_llava_image_encoder"] = 8.0
    return found


def test_speed_is_compared_with_the_loop_of_the_same_round():
    found = ratios(figures())
    assert found["speedup_fresh_c1"] == 1.5
    assert found["speedup_repeated_c8"] == 12.0


def test_latency_is_compared_with_the_longer_branch_and_the_decoder():
    assert ratios(figures())["latency_over_longer_branch"] == pytest.approx(100 / 80)


def test_time_outside_the_networks_is_what_their_longer_chain_leaves():
    found = ratios(figures())
    # Language: 8 + 15 + 1 + 1 = 25, longer than MedSAM's 20; then the decoder's 13.
    assert found["outside_networks_share_fresh"] == pytest.approx(1 - 38 / 100)
    # With 10 for the language model instead of 15 both are 20.
    assert found["outside_networks_share_fresh_without_engine"] == pytest.approx(1 - 33 / 100)
    # No encoder runs: 15 + 1 + 1 + 13.
    assert found["outside_networks_share_repeated"] == pytest.approx(1 - 30 / 40)


def test_the_table_has_a_line_for_every_hop():
    lines = hop_table(figures()).splitlines()
    names = [line.split()[0] for line in lines[1:]]
    assert names == [*Hops.__dataclass_fields__, "medsam_image_embedding"]
    router = lines[1 + list(Hops.__dataclass_fields__).index("medisee_router")].split()
    assert router[1:] == ["15.00", "1.00", "14.00", "15.00", "1.00", "14.00"]
