"""Reads the log of a starting Triton server: which models are loaded, which failed and why.

One line in, facts out; the lines themselves pass on unchanged.
"""

import json
import re
from collections import deque

_MESSAGE = re.compile(r'^[IWEF]\d{4} \S+ +\d+ \S+\] (".*")$')
_LOADED = re.compile(r"^successfully loaded '(?P<name>[^']+)'")
_FAILED = re.compile(r"^failed to load '(?P<name>[^']+)' version \d+: (?P<reason>.*)", re.DOTALL)
_POLL_FAILED = re.compile(r"^Poll failed for model directory '(?P<name>[^']+)': (?P<reason>.*)")
_DEPENDENT = re.compile(r"^Invalid argument: ensemble '?(?P<name>[\w.-]+)'? (?P<reason>.*)")


class ServerLog:
    """The log of one server so far."""

    def __init__(self, keep: int = 1000) -> None:
        self.lines: deque[str] = deque(maxlen=keep)
        """The last lines, without line ends."""
        self.loaded: list[str] = []
        """Models reported as loaded, in that order."""
        self.failed: dict[str, str] = {}
        """Reason of failure by model, without the stack."""
        self._dependents: dict[str, str] = {}

    def add(self, line: str) -> str | None:
        """Take one line; returns the name of the model it reports as loaded, if it does."""
        self.lines.append(line)
        text = _message(line)
        if text is None:
            return None
        if found := _LOADED.match(text):
            self.loaded.append(found["name"])
            return found["name"]
        if found := _FAILED.match(text) or _POLL_FAILED.match(text):
            # Triton prefixes its code and appends the Python stack.
            reason = found["reason"].partition("\n\nAt:\n")[0].strip()
            self.failed.setdefault(found["name"], reason.removeprefix("Internal: "))
        elif found := _DEPENDENT.match(text):
            self._dependents.setdefault(found["name"], found["reason"].partition("\n")[0])
        return None

    def failure(self) -> str:
        """Why the server did not start, in as few lines as there are failed models."""
        # An ensemble fails with every step it names: the step's own reason is the one to read.
        failed = self.failed or self._dependents
        if failed:
            return "\n".join(f"model {name!r} failed: {reason}" for name, reason in failed.items())
        errors = [line for line in self.lines if re.match(r"^[EF]\d{4} |^error: ", line)]
        return "\n".join(errors[-5:] or list(self.lines)[-5:]) or "it wrote nothing"


def _message(line: str) -> str | None:
    found = _MESSAGE.match(line)
    if found is None:
        return None
    try:
        return str(json.loads(found[1]))
    except ValueError:  # quoted in a way of its own: read as it stands
        return found[1].strip('"').replace("\\n", "\n")
