import json

import pytest
import torch

from export.__main__ import main


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code != 0
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["--profile", "full"], "name --medisee DIR or --mediround DIR, or take random"),
        (["--profile", "full-sam"], "no committed weights: take random ones with --random"),
        (["--profile", "full", "--random", "--medisee", "x"], "exclude each other"),
        (["--medisee", "x"], "--medisee needs --profile full"),
        (["--profile", "full", "--medisee", "x"], "needs --tokenizer FILE"),
        (["--random", "--llava-med", "x"], "--llava-med adds to --medisee DIR"),
        (["--medsam", "x"], "leave out --tokenizer and --medsam"),
        (["--random", "--tokenizer", "absent.model"], "absent.model: no such file"),
        (["--random", "--models", "medisee_rooter"], "no model medisee_rooter; there are"),
    ],
)
def test_a_wrong_combination_tells_the_way_out(arguments, way_out, capsys, tmp_path):
    assert way_out in error_of(capsys, *arguments, "--repository", str(tmp_path))


def test_an_export_elsewhere_brings_configuration_manifest_and_artifacts(capsys, tmp_path):
    models = ["medisee_box_decoder", "medisee_prompt", "mllm"]
    arguments = ["--random", "--seed", "7", "--models", ",".join(models)]
    arguments += ["--language-dtype", "bfloat16", "--repository", str(tmp_path)]
    assert main(arguments) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("profile demo: random weights, seed 7; the demo's tokenizer")
    assert [line.split(":")[0] for line in said[1:]] == [
        f"[{number}/3] {name}" for number, name in enumerate(models, start=1)
    ]
    for name in models:
        assert (tmp_path / name / "config.pbtxt").is_file()
        manifest = json.loads((tmp_path / name / "1" / "manifest.json").read_text())
        assert manifest["source"].startswith("random weights, seed 7")
    config = json.loads((tmp_path / "mllm" / "1" / "base" / "config.json").read_text())
    assert config["architectures"] == ["MistralForCausalLM"]
    assert config["dtype"] == "bfloat16"


def test_a_medsam_file_goes_to_the_image_encoder(capsys, tmp_path):
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / "medsam.pth")
    text = error_of(
        capsys,
        *("--random", "--medsam", str(tmp_path / "medsam.pth"), "--repository", str(tmp_path)),
    )
    # The demo's image encoder has other layers: a ViT-B file cannot fit.
    assert "medsam.pth: not the layout in docs/export.md" in text
