"""Command: the served models against independent code with the same weights.

Each component gets its input through the real server and is compared with `benchmarks.references`;
`medisee`, `mediround` and `organseg` compare the whole pipelines, from pixels and words;
`mediround_round_by_round` a conversation that grows against one pass over all of it;
`medsam_vit_b` the full-size image encoder, ONNX against `segment_anything`, on random weights. The
last line is one JSON object, also written to `benchmarks/results/parity.json`; every figure is to
stay at or below 1e-3 in fp32.
"""

import argparse
import tempfile
from pathlib import Path

import torch
import tritonclient.grpc as grpc

from benchmarks.differences import relative
from benchmarks.parity_encoders import encoder_differences
from benchmarks.parity_mediround import MediRoundParity
from benchmarks.parity_medisee import MediSeeParity
from benchmarks.parity_organseg import OrganSegParity
from benchmarks.references.mediround import MediRoundReference
from benchmarks.references.medisee import MediSeeReference
from benchmarks.references.organseg import OrganSegReference
from benchmarks.references.sam import SamReference
from benchmarks.results import report
from benchmarks.served_models import ServedModels
from export.build import example_inputs
from export.random_source import random_source
from export.sources import Source, demo_source
from export.to_onnx import export_onnx
from serving import model_config
from serving.launcher import launch
from serving.onnx_session import build_session

GOAL = 1e-3


def main(argv: list[str] | None = None) -> int:
    """Compare and report; the exit code says whether the goal holds everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-full-size", action="store_true", help="leave out medsam_vit_b")
    arguments = parser.parse_args(argv)
    mllm_folder = model_config.read("mllm").version_folder
    with launch(["medisee", "mediround", "organseg"]) as server:
        differences = served_differences(server.grpc_url, demo_source(), mllm_folder)
    if not arguments.skip_full_size:
        differences["medsam_vit_b"] = vit_b_difference()
    for name, difference in differences.items():
        print(f"  {name:26s} {difference:.1e}  {'ok' if difference <= GOAL else 'TOO LARGE'}")
    report("parity", {name: {"max_rel_diff": value} for name, value in differences.items()})
    return int(max(differences.values()) > GOAL)


@torch.no_grad()
def served_differences(url: str, source: Source, mllm_folder: Path) -> dict[str, float]:
    """Worst relative difference by name, of every model of a running server.

    Args:
        url: gRPC address.
        source: What the server's models were exported from.
        mllm_folder: Version folder of the model `mllm`, as the server reads it.
    """
    torch.manual_seed(0)
    profile, networks = source.profile, source.networks
    assert networks.medisee
    assert networks.mediround
    assert networks.organseg
    assert source.organseg
    medisee = MediSeeReference(profile, networks, networks.medisee, mllm_folder)
    mediround = MediRoundReference(profile, networks, networks.mediround, mllm_folder)
    organseg = OrganSegReference(profile, networks, networks.organseg, source.organseg, mllm_folder)
    with grpc.InferenceServerClient(url) as client:
        served = ServedModels(client)
        return {
            **encoder_differences(served, medisee.sam, medisee.llava),
            **MediSeeParity(served, medisee, profile).differences(),
            **MediRoundParity(served, mediround, profile).differences(),
            **OrganSegParity(served, organseg, profile).differences(),
        }


@torch.no_grad()
def vit_b_difference() -> float:
    """Full-size image encoder on random weights: our ONNX file against `segment_anything`."""
    source = random_source("full-sam")
    assert source.networks.medisee
    name, encoder = "medsam_image_encoder", source.networks.image_encoder
    pixels = torch.randn(1, 3, 1024, 1024)
    sam = SamReference(source.profile, encoder, source.networks.medisee.mask_decoder)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        config = model_config.read(name)
        export_onnx(encoder, config, example_inputs(source.profile)[name], file)
        session = build_session(file, config)
        (embedding,) = session.run(["image_embedding"], {"pixels": pixels.numpy()})
    return relative(embedding, sam.embedding(pixels))


if __name__ == "__main__":
    raise SystemExit(main())
