import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from saymask.cli import main
from saymask.conversation_file import load
from saymask.conversation_round import ConversationRound, Instance
from saymask.overlay import draw_round
from saymask.readers import read_image

pytestmark = pytest.mark.server

IMAGE = np.zeros((30, 21), np.uint8)
IMAGE[3:9, 2:8] = 200
BRIGHT = IMAGE > 127


@pytest.fixture(autouse=True)
def surroundings(conversation_url, tmp_path, monkeypatch):
    monkeypatch.setenv("SAYMASK_SERVER_URL", conversation_url)
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(IMAGE).save("scan.png")


def script(text):
    Path("script.txt").write_text(text, encoding="utf-8")
    return ["--script", "script.txt"]


def test_a_script_is_asked_line_by_line_and_every_round_is_told_and_written(tmp_path, capsys):
    lines = script("# what is bright\nbright\n\n  its left\nall and bright\nwhy so\n")
    assert main(["chat", "scan.png", *lines, "-o", "out", "--save", "talk.json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for text in (
        "scan.png, 21 x 30 px",
        "round 1  “bright”",
        "mask     instance 1: 36 px (5.7% of the picture), score 0.75, q 0.50, corrected, as q is",
        'refers   to round 1, instance 1   ("its" -> instance 1)',
        "instance 4: 36 px (5.7% of the picture), score 0.75, q 0.75\n",
        "answer   Because.",
        "30 tokens computed, 100 from earlier rounds",
    ):
        assert text in said.out
    saved = load("talk.json")
    start = f"scan_{saved.id[:8]}_round"
    names = {f"{start}{n}_overlay.png" for n in (1, 2, 3)}
    numbers = ((1, 1), (2, 2), (3, 3), (3, 4))
    names |= {f"{start}{of}_instance{number}_mask.png" for of, number in numbers}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    mask = np.asarray(PIL.Image.open(tmp_path / "out" / f"{start}1_instance1_mask.png"))
    np.testing.assert_array_equal(mask > 0, BRIGHT)
    assert all(f"file     out/{name}" in said.out for name in names)


def test_slash_commands_use_undo_branch_set_list_and_save(capsys):
    lines = script(
        "all and bright\n/use instance 2\nleft\n/undo 1\n/use round 1\nleft\n/branch 1\n/beta 0.2\n"
        "all\n/rounds\n/help\n/save other talk.json\n/quit\nnever asked\n"
    )
    assert main(["chat", "scan.png", *lines]) == 0
    said = capsys.readouterr().out
    assert said.count("refers   to round 1, instance 2\n") == 1
    assert said.count("refers   to round 1, instance 1 and round 1, instance 2\n") == 1
    for text in ("1 rounds are left", "the one before is", "/use round N", "saved other talk.json"):
        assert text in said
    assert "round 2  “all”  instances 3" in said
    assert "never asked" not in said
    assert [one.beta for one in load("other talk.json").rounds] == [0.6, 0.2]


def test_an_error_of_one_line_is_told_and_the_chat_goes_on(capsys):
    lines = script(
        "instance 9 left\n/undo 5\n/branch 1\n/fly\n/use\n/undo x\n/beta x\n/beta 2\n"
        "/save none/talk.json\nbright\n"
    )
    assert main(["chat", "scan.png", *lines, "-o", "out"]) == 1
    said = capsys.readouterr()
    errors = said.err.splitlines()
    assert len(errors) == 9
    assert all(line.startswith("saymask: error: ") for line in errors)
    for text, line in zip(
        ("[9]: there are 0 rounds", "/undo: there is no round 5; there is none yet",
         "/branch: there is no round 1; there is none yet", "/fly is no command", "'/use round 2'",
         "'/undo 2', got x", "/beta: expected a number from 0 to 1, got x", "from 0 to 1, got 2",
         "error: none/talk.json: there is no folder none"),
        errors,
        strict=True,
    ):  # fmt: skip
        assert text in line
    assert "round 1  “bright”" in said.out


def test_questions_come_from_the_command_line_and_then_from_standard_input():
    run = subprocess.run(
        [sys.executable, "-m", "saymask.cli", "chat", "scan.png", "bright", "-p", "its left", "-q"],
        input="all\n/save talk.json\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert [one.prompt for one in load("talk.json").rounds] == ["bright", "its left", "all"]


def read_until(terminal, text, end_s=30):
    """What a terminal shows up to `text`, or to its end."""
    said = b""
    while text not in said and select.select([terminal], [], [], end_s)[0]:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # what Linux answers at the end of a terminal
            break
    return said


def test_someone_at_a_terminal_gets_a_prompt_and_may_end_it(conversations):
    here, there = pty.openpty()
    command = [sys.executable, "-m", "saymask.cli", "chat", "scan.png"]
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, start_new_session=True
    )
    os.close(there)
    try:
        assert b"Ask, or /help" in read_until(here, b"[1] ")
        os.write(here, b"bright\n")
        assert "round 1  “bright”".encode() in read_until(here, b"[2] ")
        os.write(here, b"sleep 5 all\n")
        end_s = time.monotonic() + 30
        while not conversations.log(prompt="sleep 5 all") and time.monotonic() < end_s:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        told = b"interrupted; asking the same again fetches its answer"
        assert told in read_until(here, told)  # the line typed may be shown with its prompt again
        read_until(here, b"[2] ")
        os.write(here, b"\x04")
        read_until(here, b"never said")
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.wait()
        os.close(here)


def test_a_conversation_is_resumed_by_file_or_id_and_replayed(capsys):
    assert main(["chat", "scan.png", *script("bright\n"), "--save", "talk.json"]) == 0
    conversation_id = load("talk.json").id
    capsys.readouterr()
    for resumed in ("talk.json", conversation_id):
        asked = ["chat", "scan.png", *script("its left"), "--resume", resumed, "--beta", "0.9"]
        assert main([*asked, "--save", "talk.json"]) == 0
        said = capsys.readouterr().out
        assert f"resumed conversation {conversation_id}\nround 1  “bright”  instances 1" in said
    assert [one.beta for one in load("talk.json").rounds] == pytest.approx([0.6, 0.9, 0.9])
    assert main(["chat", "scan.png", "--replay", "talk.json"]) == 0
    assert "all 3 rounds are identical" in capsys.readouterr().out
    content = json.loads(Path("talk.json").read_text())
    content["rounds"][0]["prompt"] = "all"
    Path("talk.json").write_text(json.dumps(content))
    assert main(["chat", "scan.png", "--replay", "talk.json"]) == 1
    assert "round 1: instance 1: 594 of 630 pixels differ" in capsys.readouterr().out
    assert main(["chat", "scan.png", "--replay", "talk.json", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["differences"][0]["round"] == 1


def test_the_id_and_how_to_resume_are_told(capsys):
    assert main(["chat", "scan.png", *script("bright\n/quit"), "--save", "talk.json"]) == 0
    conversation_id = load("talk.json").id
    said = capsys.readouterr().out
    assert said.splitlines()[1] == f"conversation {conversation_id}"
    assert said.splitlines()[-1].endswith(f"--resume {conversation_id}")
    assert main(["chat", "scan.png", *script("/quit")]) == 0  # nothing is stored yet
    assert "--resume" not in capsys.readouterr().out


def test_a_conversation_is_resumed_about_its_own_picture_only(capsys):
    assert main(["chat", "scan.png", *script("bright"), "--save", "talk.json"]) == 0
    PIL.Image.fromarray(255 - IMAGE).save("other.png")
    assert main(["chat", "other.png", *script("bright"), "--resume", load("talk.json").id]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "(30, 21) pixels with SHA-256 " in said


def test_erase_removes_the_conversation_from_the_server_and_ends(conversations, capsys):
    lines = script("bright\n/erase 1\n/erase\nnever asked")
    assert main(["chat", "scan.png", *lines, "--save", "talk.json"]) == 1  # as a line failed
    conversation_id = load("talk.json").id
    said = capsys.readouterr()
    assert "/erase: it takes nothing and erases all, got 1" in said.err
    assert said.out.endswith(f"erased conversation {conversation_id} on the server\n")
    actions = [one["action"] for one in conversations.log(came=conversation_id)]
    assert actions == ["ask", "erase"]
    assert main(["chat", "scan.png", "--resume", conversation_id]) == 1
    assert "the conversation is lost" in capsys.readouterr().err


def test_ct_is_shown_in_the_soft_tissue_window_unless_another_is_given(capsys):
    values = np.full((12, 14, 10), -1000, np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), "ct.nii.gz")
    for more, shown in (([], "-160..240"), (["--window", "-1000", "0"], "-1000..0")):
        assert main(["chat", "ct.nii.gz", *script(""), *more]) == 0
        assert f"values {shown}" in capsys.readouterr().out


def test_a_lost_conversation_says_in_the_shells_words_what_is_left(conversations, capsys):
    assert main(["chat", "scan.png", *script("bright"), "--save", "talk.json"]) == 0
    conversations.forget(load("talk.json").id)
    assert main(["chat", "scan.png", "--resume", "talk.json"]) == 1
    said = capsys.readouterr().err
    assert "saymask chat IMAGE --replay FILE" in said
    assert "client." not in said


def test_json_is_the_saved_conversation_and_nothing_else_on_stdout(capsys):
    assert main(["chat", "scan.png", *script("bright"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["schema"] == "saymask.conversation/1"
    assert content["rounds"][0]["instances"][0]["area_px"] == 36


def test_nothing_found_in_any_round_is_exit_code_3():
    assert main(["chat", "scan.png", *script("nothing"), "-q"]) == 3
    assert main(["chat", "scan.png", *script("nothing\nbright"), "-q"]) == 0
    assert main(["chat", "scan.png", *script(""), "-q"]) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.png"], "there is no file nowhere.png"),
        (["scan.png", "--script", "nowhere.txt"], "--script nowhere.txt: cannot be read"),
        (["scan.png", "--beta", "2"], "beta: expected a number from 0 to 1, got 2.0"),
        (["scan.png", " "], "prompt: it is empty"),
        (["scan.png", "--resume", "nowhere.json"], "nowhere.json: cannot be read"),
        (["scan.png", "--replay", "scan.png"], "scan.png: not a saved conversation"),
        (["scan.png", "--resume", "x", "--judge", "every"], "keeps its own"),
        (["scan.png", "--save", "none/talk.json"], "talk.json: there is no folder none"),
        (["scan.png", "bright", "--replay", "x"], "leave out a question, or go on with --resume"),
        (
            [
                "scan.png",
                "--replay",
                "x",
                "--beta",
                "0",
                "--script",
                "x",
                "--save",
                "x",
                "-o",
                "x",
                "--judge",
                "every",
                "--mask",
                "nifti",
            ],
            "leave out --script, --save, --beta, --judge, --output, --mask, or",
        ),
    ],
)
def test_a_wrong_command_is_one_line_on_stderr_and_exit_code_2(capsys, arguments, text):
    assert main(["chat", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert text in captured.err


def test_the_commands_of_the_page_run_as_they_stand(monkeypatch, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "conversations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(saymask chat .*?)```", page, re.DOTALL)
    volume = tmp_path / "out" / "demo" / "synthetic_abdomen.nii.gz"
    volume.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 30), np.int16), np.eye(4)), volume)
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    run = subprocess.run(
        ["bash", "-ec", block], input="the liver\n", capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("round 3  “the aorta and the right kidney”") == 1
    assert "all 1 rounds are identical" in run.stdout


def test_masks_of_a_volume_lie_in_its_space(tmp_path):
    values = np.zeros((12, 14, 10), np.int16)
    values[2:5, 3:9, 4:6] = 1000
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0])), "brain.nii.gz")
    asked = ["chat", "brain.nii.gz", *script("bright"), "--mask", "nifti", "--slice", "4"]
    assert main([*asked, "-o", "out", "-q"]) == 0
    (path,) = (tmp_path / "out").glob("brain_axial4_*_round1_instance1.nii.gz")
    expected = values > 0
    expected[:, :, 5] = False
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj) > 0, expected)


def test_an_overlay_shows_each_instance_in_its_color_and_with_a_number(tmp_path):
    PIL.Image.fromarray(np.full((64, 64), 100, np.uint8)).save("flat.png")
    source = read_image("flat.png")
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 4:28, 4:28] = masks[1, 36:60, 36:60] = True
    none = Instance(3, np.zeros((64, 64), bool), 0, 0.9, False)
    both = [Instance(n + 1, mask, 0.75, 0.5, n == 1) for n, mask in enumerate(masks)]
    plain, drawn = (
        np.asarray(draw_round(source, ConversationRound(1, "a and b", tuple(shown)))).astype(int)
        for shown in ([none], [*both, none])
    )
    scale = drawn.shape[1] // 64
    changed = np.abs(drawn[: 64 * scale] - plain[: 64 * scale]).sum(axis=-1) > 0
    inside = masks.any(axis=0).repeat(scale, 0).repeat(scale, 1)
    assert (changed == inside).mean() > 0.99
    tints = [drawn[8 * scale, 8 * scale], drawn[56 * scale, 56 * scale]]
    assert np.abs(tints[0] - tints[1]).sum() > 60
    for row, column in ((16, 16), (48, 48)):  # the number, white and in the middle of its mask
        label = drawn[(row - 1) * scale : (row + 2) * scale, (column - 1) * scale :][:, : 3 * scale]
        assert label.min(axis=-1).max() > 225
