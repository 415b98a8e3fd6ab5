"""Kinds of errors, and how they pass from a callee to its caller."""

import asyncio
import json

import pytest

from serving import errors
from serving.called_errors import called_id, tag, untag


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("x"), "INVALID_ARG"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "INVALID_ARG"),
        (json.JSONDecodeError("x", "", 0), "INVALID_ARG"),
        (KeyError("x"), "NOT_FOUND"),
        (IndexError("x"), "NOT_FOUND"),
        (errors.Unavailable("x"), "UNAVAILABLE"),
        (asyncio.CancelledError(), "CANCELLED"),
        (errors.Cancelled(), "CANCELLED"),
        (TimeoutError("x"), "INTERNAL"),
        (RuntimeError("x"), "INTERNAL"),
        (SystemExit(1), "INTERNAL"),
    ],
)
def test_an_exception_has_the_kind_of_its_class(error, kind):
    assert errors.kind_of(error) == kind


@pytest.mark.parametrize("kind", errors.KINDS)
def test_an_error_made_of_a_kind_has_that_kind_and_text(kind):
    error = errors.error_of(kind, "the text")
    assert errors.kind_of(error) == kind
    assert errors.message_of(error) == "the text"


def test_a_key_error_reads_without_quotes():
    assert errors.message_of(KeyError("no adapter 'x'")) == "no adapter 'x'"


@pytest.mark.parametrize("kind", [kind for kind in errors.KINDS if kind != "INTERNAL"])
def test_a_kind_survives_a_call_that_reports_every_error_as_internal(kind):
    inner = called_id("r1", "medisee")
    assert untag(tag("two\nlines", kind, inner), "INTERNAL") == ("two\nlines", kind)
    # A server that keeps the code gives the same.
    assert untag(tag("two\nlines", kind, inner), kind) == ("two\nlines", kind)


@pytest.mark.parametrize("request_id", ["", "r1", "called by me"])
def test_a_client_sees_no_tag(request_id):
    assert tag("text", "INVALID_ARG", request_id) == "text"


def test_the_id_of_a_nested_call_keeps_the_clients_and_names_the_last_caller():
    assert called_id(called_id("r1", "a"), "b") == "r1 (called by b)"


def test_a_full_queue_of_tritons_own_scheduler_is_unavailable():
    text = "in ensemble 'medisee', Exceeds maximum queue size"
    assert untag(text, "INTERNAL") == (text, "UNAVAILABLE")
