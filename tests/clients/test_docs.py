import re
import shlex
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from saymask.cli import NOTHING_FOUND, OK, main

pytestmark = pytest.mark.server

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "count", "said"),
    [
        ("client.md", 2, "the bright spot"),
        ("protocol.md", 2, "the bright spot"),
        ("organseg.md", 1, "the right kidney?"),
    ],
)
def test_the_examples_run_as_they_stand(page, count, said, server, capsys):
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= count
    names = {}
    for block in blocks:
        for port, url in (("8001", server.grpc_url), ("8000", server.http_url)):
            block = block.replace(f"localhost:{port}", url)
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    assert said in printed
    if page == "protocol.md":  # over gRPC and over HTTP
        assert printed.count("(120, 90) 600 0.75") == 2


def test_the_commands_of_the_clients_page_run_as_they_stand(
    server_url, conversation_url, tmp_path, monkeypatch, capsys
):
    text = (DOCS / "client.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(saymask segment .*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    demo = tmp_path / "out" / "demo"
    demo.mkdir(parents=True)
    PIL.Image.new("L", (8, 8), 200).save(demo / "slice.png")
    for name, slices in (("mni152_brain", 90), ("synthetic_abdomen", 30)):
        volume = nibabel.Nifti1Image(np.zeros((8, 8, slices), np.int16), np.eye(4))
        nibabel.save(volume, demo / f"{name}.nii.gz")
    (tmp_path / "nothing.txt").write_text("")
    for line in block.splitlines():
        arguments = shlex.split(line)[1:]
        if arguments[0] == "chat":  # the servers here have one pipeline or the other
            arguments += ["--url", conversation_url, "--script", "nothing.txt"]
        else:
            arguments += ["--url", server_url]
        assert main(arguments) in (OK, NOTHING_FOUND), line
    assert capsys.readouterr().err == ""
