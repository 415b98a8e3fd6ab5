"""What one round's figures say about each other, and the table of hops.

Names of figures are explained in docs/performance.md.
"""

from benchmarks.hops import Hops

Figures = dict[str, float]

CONCURRENCY = (1, 4, 8)

ENCODERS = ("medsam_image_encoder", "llava_image_encoder")
NETWORKS = (*ENCODERS, "medisee_router", "medisee_box_decoder", "medisee_mask_decoder")
"""Networks in ONNX; the language model has no statistics of its own in Triton."""


def ratios(figures: Figures) -> Figures:
    """What one round's figures say about each other."""
    found: Figures = {}
    for kind in ("fresh", "repeated"):
        for concurrency in CONCURRENCY:
            rate = figures[f"throughput_{kind}_c{concurrency}"]
            found[f"speedup_{kind}_c{concurrency}"] = rate / figures["loop_throughput"]
        # Branches overlap: the longer chain of networks is what a request cannot be without.
        networks = {name: figures.get(f"network_ms_{kind}_{name}", 0.0) for name in NETWORKS}
        mllm_ms = figures[f"hop_ms_{kind}_mllm"]
        found[f"outside_networks_share_{kind}"] = 1 - (
            _longest_chain(networks, mllm_ms) / figures[f"latency_ms_{kind}"]
        )
        if kind == "fresh":
            plain_ms = min(mllm_ms, figures["loop_network_ms_mllm"])
            found["outside_networks_share_fresh_without_engine"] = 1 - (
                _longest_chain(networks, plain_ms) / figures["latency_ms_fresh"]
            )
    longer_ms = max(figures["sam_branch_ms"], figures["language_branch_ms"])
    found["longer_branch_plus_decoder_ms"] = longer_ms + figures["decoder_ms"]
    found["latency_over_longer_branch"] = (
        figures["latency_ms_fresh"] / found["longer_branch_plus_decoder_ms"]
    )
    return found


def _longest_chain(network_ms: dict[str, float], mllm_ms: float) -> float:
    language_ms = (
        network_ms["llava_image_encoder"]
        + mllm_ms
        + network_ms["medisee_router"]
        + network_ms["medisee_box_decoder"]
    )
    return max(network_ms["medsam_image_encoder"], language_ms) + network_ms["medisee_mask_decoder"]


def hop_table(figures: Figures) -> str:
    """Each hop of a request: its time, its network's, and the rest, which is overhead."""
    encoder_of = {"llava_image_tokens": "llava_image_encoder"}
    lines = [
        f"{'hop':26s}{'fresh':>9s}{'network':>9s}{'overhead':>9s}"
        f"{'repeated':>11s}{'network':>9s}{'overhead':>9s}"
    ]
    for hop in Hops.__dataclass_fields__:
        line = f"{hop:26s}"
        for kind in ("fresh", "repeated"):
            took = figures[f"hop_ms_{kind}_{hop}"]
            network = figures.get(f"network_ms_{kind}_{encoder_of.get(hop, hop)}", 0.0)
            if hop == "mllm":
                # The plain forward pass stands for the network; with a cached prefix there is none.
                network = min(took, figures["loop_network_ms_mllm"]) if kind == "fresh" else took
            line += f"{took:{9 if kind == 'fresh' else 11}.2f}{network:9.2f}{took - network:9.2f}"
        lines.append(line)
    took, network = figures["sam_branch_ms"], figures["sam_branch_network_ms"]
    line = f"{'medsam_image_embedding':26s}{took:9.2f}{network:9.2f}{took - network:9.2f}"
    lines.append(f"{line}   alone; in a request it runs beside the language branch")
    return "\n".join(lines)
