import re
from pathlib import Path

import pytest

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
