"""Kinds of errors, and how they pass from a callee to its caller."""

import asyncio
import json

import grpc
import pytest

from serving import errors
from serving.error_text import tag, untag


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


@pytest.mark.parametrize("kind", errors.KINDS)
def test_a_kind_survives_a_call_that_reports_every_error_as_internal(kind):
    assert untag(tag("two\nlines", kind), "INTERNAL") == ("two\nlines", kind)
    # A server that keeps the code gives the same.
    assert untag(tag("two\nlines", kind), kind) == ("two\nlines", kind)


def test_the_tag_is_the_name_of_the_grpc_status():
    for kind in errors.KINDS:
        assert hasattr(grpc.StatusCode, tag("text", kind).removesuffix(": text"))


def test_a_pipelines_name_before_the_tag_goes_with_it():
    text = "in ensemble 'a', in ensemble 'b', NOT_FOUND: no adapter"
    assert untag(text, "INTERNAL") == ("no adapter", "NOT_FOUND")


def test_a_full_queue_of_tritons_own_scheduler_is_unavailable():
    text = "in ensemble 'medisee', Exceeds maximum queue size"
    assert untag(text, "INTERNAL") == (text, "UNAVAILABLE")
