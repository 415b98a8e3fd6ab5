import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.server

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["client.md", "protocol.md"])
def test_the_examples_run_as_they_stand(page, server_url, capsys):
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    names = {}
    for block in blocks:
        exec(compile(block.replace("localhost:8001", server_url), page, "exec"), names)
    assert "the bright spot" in capsys.readouterr().out
