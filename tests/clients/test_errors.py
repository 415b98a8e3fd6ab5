import pickle

import grpc
import pytest
import saymask
from saymask import _protocol, errors
from tritonclient.grpc import service_pb2

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


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Tls "
            "handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000f7:SSL "
            "routines:OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification "
            "context: OK",
            "a server answers at host:1, but not with TLS, or not with a certificate",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Custom "
            "verification check failed with error: UNAUTHENTICATED: Hostname Verification Check "
            "failed.",
            "a server answers at host:1, but not with TLS, or not with a certificate",
        ),
        (
            "errors resolving host:1: [field:hostname lookup error:address lookup failed for "
            "host:1: Domain name not found]",
            "the host name host is not known (Domain name not found). Check",
        ),
    ],
)
def test_grpcs_long_texts_become_one_sentence(details, said):
    error = errors.error_of_status("UNAVAILABLE", details, url="host:1")
    assert type(error) is errors.Unavailable
    assert str(error).startswith(said)
    assert "(OK)" not in str(error)


def test_a_model_that_is_being_unloaded_is_unavailable_not_unknown():
    text = "Request for unknown model: 'medisee' has no available versions"
    error = errors.error_of_status("NOT_FOUND", text, url="host:1")
    assert (type(error), error.code) == (errors.Unavailable, "UNAVAILABLE")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("INVALID_ARGUMENT: prompt: blank", errors.InvalidArgument, "prompt: blank"),
        ("in ensemble 'a', in ensemble 'b', NOT_FOUND: no b", errors.NotFound, "no b"),
        ("UNAVAILABLE: full", errors.Unavailable, "host:1: full"),
        ("in ensemble 'a', Exceeds maximum queue size", errors.Unavailable, None),
        ("Request for unknown model: 'a' is not found", errors.NotFound, None),
        ("Request for unknown model: 'a' has no available versions", errors.Unavailable, None),
        ("UNIMPLEMENTED: no", errors.ServerError, None),
        ("Stub process is not healthy", errors.ServerError, None),
    ],
)
def test_a_text_inside_a_stream_has_the_kind_its_tag_says(text, kind, message):
    error = errors.error_of_text(text, url="host:1", request_id="r7")
    assert type(error) is kind
    assert message in (error.message, None)


def test_a_status_keeps_its_text_without_the_tag():
    text = "in ensemble 'medisee', INVALID_ARGUMENT: prompt: blank"
    error = errors.error_of_status("INVALID_ARGUMENT", text, url="host:1")
    assert error.message == "prompt: blank"


@pytest.mark.parametrize("size", [0, 15, 17])
def test_an_answer_of_the_wrong_size_is_the_servers_error(size):
    response = service_pb2.ModelInferResponse(
        outputs=[
            service_pb2.ModelInferResponse.InferOutputTensor(
                name="boxes_xyxy", datatype="FP32", shape=[1, 4]
            )
        ],
        raw_output_contents=[bytes(size)],
    )
    with pytest.raises(saymask.ServerError, match=f"boxes_xyxy: .* {size} bytes"):
        _protocol._tensor(response, "boxes_xyxy", "FP32", "<f4", (1, 4))
