import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.server

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["client.md", "protocol.md"])
def test_the_examples_run_as_they_stand(page, server, capsys):
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    names = {}
    for block in blocks:
        for port, url in (("8001", server.grpc_url), ("8000", server.http_url)):
            block = block.replace(f"localhost:{port}", url)
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    assert "the bright spot" in printed
    if page == "protocol.md":  # over gRPC and over HTTP
        assert printed.count("(120, 90) 600 0.75") == 2
