import pickle

import grpc
import pytest
import saymask
from saymask import errors

KINDS = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]


@pytest.mark.parametrize("status", [code.name for code in grpc.StatusCode if code.name != "OK"])
def test_every_grpc_status_has_a_kind_that_says_what_to_do_next(status):
    error = errors.error_of_status(status, "it broke", url="host:1", request_id="r7")
    assert isinstance(error, saymask.SaymaskError)
    assert error.code == status
    assert "it broke" in str(error)
    assert str(error).endswith(type(error).next_step)
    assert type(error).next_step


def test_errors_fit_the_builtin_kinds_that_callers_already_catch():
    assert issubclass(saymask.InvalidArgument, ValueError)
    assert issubclass(saymask.NotFound, LookupError)
    assert issubclass(saymask.DeadlineExceeded, TimeoutError)
    assert issubclass(saymask.MissingExtra, ImportError)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_pass_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("text", code="X", request_id="r")))
    assert type(error) is kind
    assert (error.message, error.code, error.request_id) == ("text", "X", "r")


def test_a_server_error_names_the_request_and_an_unreachable_server_its_address():
    internal = errors.error_of_status("INTERNAL", "boom", url="host:1", request_id="r7")
    assert "r7" in str(internal)
    away = errors.error_of_status(
        "UNAVAILABLE",
        "failed to connect to all addresses; last error: x: Connection refused",
        url="host:1",
    )
    assert "no server answers at host:1 (Connection refused)" in str(away)
