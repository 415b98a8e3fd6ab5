from benchmarks.hops import hops_of
from benchmarks.step_traces import Span, parse


def span(**times):
    return Span(times)


def test_entries_of_one_trace_are_joined_by_its_number_in_any_order():
    entries = [
        {"id": 2, "timestamps": [{"name": "REQUEST_START", "ns": 3_000_000}]},
        {"id": 1, "model_name": "medisee", "request_id": "a", "model_version": 1},
        {"id": 1, "timestamps": [{"name": "REQUEST_START", "ns": 2_000_000}]},
        {"id": 2, "model_name": "mllm", "request_id": "a", "parent_id": 1},
        {"id": 1, "timestamps": [{"name": "INFER_RESPONSE_COMPLETE", "ns": 9_500_000}]},
        {"id": 3, "model_name": "medisee", "request_id": "b", "timestamps": []},
    ]
    traces = parse(entries)
    assert set(traces) == {"a", "b"}
    assert traces["a"]["medisee"].start_ms == 2
    assert traces["a"]["medisee"].answered_ms == 9.5
    assert traces["a"]["mllm"].start_ms == 3


def traced(decoder_start):
    return {
        "medisee": span(REQUEST_START=100, INFER_RESPONSE_COMPLETE=190),
        "llava_image_tokens": span(REQUEST_START=101),
        "mllm": span(REQUEST_START=110),
        "medisee_router": span(REQUEST_START=130),
        "medisee_box_decoder": span(REQUEST_START=132, COMPUTE_END=133),
        "medisee_mask_decoder": span(REQUEST_START=decoder_start),
    }


def test_hops_add_up_to_the_latency_the_client_saw():
    hops = hops_of(traced(decoder_start=160), latency_ms=93)
    assert sum(vars(hops).values()) == 93
    assert hops.client == 3
    assert hops.checked_request == 1
    assert hops.llava_image_tokens == 9
    assert hops.mllm == 20
    assert hops.wait_for_image_embedding == 27
    assert hops.medisee_mask_decoder == 30


def test_a_box_step_that_closes_after_its_output_went_on_makes_no_negative_wait():
    hops = hops_of(traced(decoder_start=132.5), latency_ms=93)
    assert hops.wait_for_image_embedding == 0
    assert hops.medisee_box_decoder == 0.5
    assert sum(vars(hops).values()) == 93
