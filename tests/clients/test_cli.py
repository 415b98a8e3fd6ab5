import json
import os
import subprocess
import sys

import nibabel
import numpy as np
import PIL.Image
import pytest
import saymask
from saymask.cli import main

pytestmark = pytest.mark.server


@pytest.fixture
def picture(tmp_path):
    pixels = np.zeros((40, 30), np.uint8)
    pixels[5:15, 3:9] = 220
    path = tmp_path / "scan.png"
    PIL.Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def volume(tmp_path):
    values = np.zeros((12, 14, 10), np.int16)
    values[2:5, 3:9, 4:6] = 1000
    path = tmp_path / "brain.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return path


@pytest.fixture(autouse=True)
def surroundings(server_url, tmp_path, monkeypatch):
    monkeypatch.setenv("SAYMASK_SERVER_URL", server_url)
    monkeypatch.chdir(tmp_path)


def shell(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "saymask.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | variables,
        timeout=60,
    )


def test_a_question_gives_mask_overlay_and_report_and_says_so(picture, tmp_path):
    run = shell("segment", picture, "bright spot", "-o", "out")
    assert (run.returncode, run.stderr) == (0, "")
    out = tmp_path / "out"
    names = {"scan_bright_spot_mask.png", "scan_bright_spot_overlay.png", "scan_bright_spot.json"}
    assert {path.name for path in out.iterdir()} == names
    mask = np.asarray(PIL.Image.open(out / "scan_bright_spot_mask.png"))
    np.testing.assert_array_equal(mask > 0, np.asarray(PIL.Image.open(picture)) > 127)
    said = ("“bright spot”", "found    60 px", "score    0.75 (mean probability of", *names)
    note = "demo weights: brain on T1 MRI, abdomen on synthetic CT; not for clinical use"
    for text in (*said, note):
        assert text in run.stdout
    report = json.loads((out / "scan_bright_spot.json").read_text())
    assert report["server"].startswith("saymask-demo ")


def test_another_image_of_the_same_name_has_files_of_its_own(tmp_path):
    for patient, value in (("p1", 200), ("p2", 210)):
        (tmp_path / patient).mkdir()
        PIL.Image.new("L", (8, 8), value).save(tmp_path / patient / "IM1.png")
    out = tmp_path / "out"
    for patient in ("p1", "p2", "p2", "p1"):
        assert main(["segment", f"{patient}/IM1.png", "bright", "-o", "out", "-q"]) == 0
    reports = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    second = reports.pop(f"IM1_bright_{saymask.read_image('p2/IM1.png').sha256[:8]}")
    first = reports.pop("IM1_bright")
    assert reports == {}
    assert first["source"]["sha256"] == saymask.read_image("p1/IM1.png").sha256
    assert all((out / name).is_file() for name in second["files"].values())
    assert len(list(out.iterdir())) == 6


def test_an_explanation_that_fails_alone_leaves_the_mask(picture, tmp_path):
    run = shell("segment", picture, "break 2", "-o", "out", "--explain")
    assert run.returncode == 0
    assert run.stdout.count("found    60 px") == 1
    assert run.stderr.startswith("no explanation: ")
    assert run.stderr.count("\n") == 1
    (report,) = (tmp_path / "out").glob("*.json")
    assert json.loads(report.read_text())["explanation"] is None


def test_an_explanation_that_fails_with_its_mask_is_one_line(picture, capsys):
    assert main(["segment", str(picture), "fail INTERNAL", "--explain", "-q"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_mask_of_a_few_pixels_is_not_zero_percent(tmp_path, capsys):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[5, 5] = 255
    PIL.Image.fromarray(pixels).save("small.png")
    assert main(["segment", "small.png", "bright", "-o", "out"]) == 0
    assert "found    1 px (<0.1% of the picture)" in capsys.readouterr().out


def test_several_questions_on_a_volume_are_explained_and_lie_in_its_space(volume, tmp_path):
    run = shell(
        "segment", volume, "bright", "-p", "bright part", "-p", "nothing", "-o", "out",
        "--explain", "--mask", "nifti", "--plane", "coronal", "--slice", "5", "--square",
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert "explanation of “bright part”\n  bright part" in run.stdout
    assert "nothing found" in run.stdout
    written = nibabel.load(tmp_path / "out" / "brain_coronal5_bright_part.nii.gz")
    truth = np.asarray(nibabel.load(volume).dataobj) > 0
    expected = np.zeros_like(truth)
    expected[:, 5] = truth[:, 5]
    np.testing.assert_array_equal(np.asarray(written.dataobj) > 0, expected)
    report = json.loads((tmp_path / "out" / "brain_coronal5_bright_part.json").read_text())
    assert report["explanation"] == "bright part "
    assert report["area_mm2"] == expected.sum() * 6


def test_json_is_one_document_and_nothing_else_on_stdout(picture):
    run = shell("segment", picture, "bright", "-p", "nothing", "--json", "--explain", "-o", "out")
    document = json.loads(run.stdout)
    assert [result["found"] for result in document["results"]] == [True, False]
    assert document["results"][0]["explanation"] == "bright "
    assert {model["name"] for model in document["results"][0]["models"]} == {
        "medisee",
        "medisee_explain",
        "organseg",
    }


def test_nothing_found_is_exit_code_3_and_the_files_are_there(picture, tmp_path, capsys):
    assert main(["segment", str(picture), "nothing", "-o", "out", "-q"]) == 3
    assert capsys.readouterr() == ("", "")
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_one_question_asked_twice_has_files_of_its_own(picture, tmp_path):
    assert main(["segment", str(picture), "bright", "-p", "Bright!", "-o", "out", "-q"]) == 0
    assert (tmp_path / "out" / "scan_bright_2_mask.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["segment", "nowhere.png", "x"], "there is no file nowhere.png"),
        (["segment", "scan.png"], "no question"),
        (["segment", "scan.png", " "], "prompt: it is empty"),
        (["segment", "scan.png", "x", "--plane", "axial"], "no NIfTI volume"),
        (["segment", "scan.png", "x", "--mask", "nifti"], "use --mask png"),
        (["segment", "scan.png", "x", "--url", "http://localhost:8000"], "localhost:8001"),
        (["segment", "scan.png", "x", "--timeout", "0"], "error: --timeout: "),
        (["segment", "nowhere.png", "x", "--url", "localhost"], "error: --url: "),
        (["segment", "nowhere.png", "x", "--timeout", "-1"], "error: --timeout: "),
        (["segment", "nowhere.png", "x", "-p", ""], "prompt: it is empty"),
        (["segment", "brain.nii.gz", "x", "--slice", "99"], "has 0..9"),
    ],
)
def test_a_wrong_command_is_one_line_on_stderr_and_exit_code_2(
    picture, volume, tmp_path, capsys, arguments, text
):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("saymask: error: ")
    assert captured.err.count("\n") == 1
    assert text in captured.err
    assert not (tmp_path / "saymask_out").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["segment"], ["segment", "a.png", "x", "--slice", "two"], ["fly"]]
)
def test_a_command_line_that_cannot_be_parsed_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: saymask" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("fail INTERNAL", "its log has the cause"),
        ("fail INVALID_ARG", "asked for INVALID_ARG"),
        ("sleep 9 cli", "within --timeout. Raise --timeout, or"),
    ],
)
def test_a_failure_of_the_server_is_one_line_and_exit_code_1(picture, capsys, prompt, text):
    assert main(["segment", str(picture), prompt, "-q", "--timeout", "0.5"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert text in captured.err


def test_progress_and_error_keep_their_order_in_a_pipe(picture):
    command = [sys.executable, "-m", "saymask.cli", "segment", str(picture), "fail INTERNAL"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    first, second = run.stdout.splitlines()
    assert first.startswith(b"scan.png")
    assert second.startswith(b"saymask: error")


def test_a_traceback_comes_with_debug_only(picture):
    run = shell("segment", picture, "fail INTERNAL", "--debug")
    assert run.returncode == 1
    assert "Traceback" in run.stderr
    assert "Traceback" not in shell("segment", picture, "fail INTERNAL").stderr


def test_an_output_folder_that_cannot_be_made_is_exit_code_1(picture, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["segment", str(picture), "bright", "-o", "file/out"]) == 1
    assert "file/out" in capsys.readouterr().err


def test_health_and_models_tell_what_is_served(capsys):
    assert main(["health"]) == 0
    assert "medisee_explain  ready" in capsys.readouterr().out
    assert main(["health", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["can_segment"] is True
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "medisee  version 1  READY" in text
    assert "image UINT8 (any x any x any)" in text
    assert main(["models", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["models"]) == 3


def test_health_is_that_of_the_server_whatever_it_serves(conversation_url, monkeypatch, capsys):
    assert main(["health", "--url", conversation_url]) == 0
    said = capsys.readouterr().out
    assert "mediround        ready" in said
    assert "medisee          not served" in said
    health = saymask.results.Health("saymask 2.51.0", True, False, {"medisee": True})
    monkeypatch.setattr(saymask.Client, "health", lambda self: health)
    assert main(["health"]) == 1
    assert "saymask 2.51.0, not ready yet" in capsys.readouterr().out


def test_help_tells_the_exit_codes_of_every_command(capsys):
    for command in ([], ["segment"], ["organs"], ["chat"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "3 segment, organs, chat ran, and found nothing" in said
        assert "chat: a line failed, or a replay differs; health:" in said


def test_options_of_all_commands_may_stand_before_the_command(capsys):
    assert main(["--json", "health"]) == 0
    assert json.loads(capsys.readouterr().out)["server"].startswith("saymask-demo ")
    assert main(["--url", "127.0.0.1:1", "health"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_without_a_server_health_is_exit_code_1(capsys):
    assert main(["health", "--url", "127.0.0.1:1"]) == 1
    assert "no server answers at 127.0.0.1:1" in capsys.readouterr().err


def test_a_shell_in_the_c_locale_gets_an_answer_too(picture, tmp_path):
    run = shell("segment", picture, "bright é", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert run.returncode == 0, run.stderr
    (report,) = (tmp_path / "saymask_out").glob("scan_bright_*.json")
    assert json.loads(report.read_text("utf-8"))["prompt"] == "bright é"


def test_the_version_is_the_packages():
    assert shell("--version").stdout == f"saymask {saymask.__version__}\n"
