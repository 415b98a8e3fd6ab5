"""Facts from the lines of a Triton log; the lines are as Triton 2.51 writes them."""

from serving.server_log import ServerLog

HEAD = "1123 05:52:39.163731 6443 "


def log_of(*lines: str) -> ServerLog:
    log = ServerLog()
    for line in lines:
        log.add(line)
    return log


def test_a_loaded_model_is_reported_once():
    log = ServerLog()
    assert log.add(f"I{HEAD}model_lifecycle.cc:839] \"successfully loaded 'echo'\"") == "echo"
    assert log.add(f'I{HEAD}model_lifecycle.cc:472] "loading: echo:1"') is None
    assert log.loaded == ["echo"]


def test_a_failure_is_the_models_own_error_without_stack_and_without_the_ensembles_echo():
    log = log_of(
        f"E{HEAD}model_lifecycle.cc:642] \"failed to load 'boom' version 1: Internal: "
        'ValueError: it says \\"no\\"\\n\\nAt:\\n  /a/b.py(51): initialize\\n"',
        f"I{HEAD}model_lifecycle.cc:777] \"failed to load 'boom'\"",
        f"E{HEAD}model_repository_manager.cc:703] \"Invalid argument: ensemble 'ens' depends on "
        "'boom' which has no loaded version.\"",
        "error: creating server: Internal - failed to load all models",
    )
    assert log.failure() == "model 'boom' failed: ValueError: it says \"no\""


def test_an_ensembles_failure_is_told_when_it_is_the_only_one():
    log = log_of(
        f'E{HEAD}model_repository_manager.cc:703] "Invalid argument: ensemble ens contains models '
        'that are not available or ambiguous: x"'
    )
    assert log.failure() == (
        "model 'ens' failed: contains models that are not available or ambiguous: x"
    )


def test_a_failure_without_a_model_gives_the_last_error_lines():
    log = log_of(
        f'I{HEAD}server.cc:1] "hello"',
        f'E{HEAD}main.cc:2] "failed to start HTTP service"',
        "error: cannot go on",
    )
    assert log.failure().splitlines() == [
        f'E{HEAD}main.cc:2] "failed to start HTTP service"',
        "error: cannot go on",
    ]


def test_only_the_last_lines_are_kept():
    log = ServerLog(keep=2)
    for line in ("a", "b", "c"):
        log.add(line)
    assert list(log.lines) == ["b", "c"]
