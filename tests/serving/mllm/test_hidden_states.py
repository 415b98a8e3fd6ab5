import pickle
from types import SimpleNamespace

import pytest
import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

from serving.mllm.hidden_states import DTYPE_KEY, ROWS_KEY, ExportedRows, HiddenStatesConnector

BLOCK_SIZE = 4
WIDTH = 3
BLOCKS = {"a": [7, 2, 5], "b": [1, 9]}
"""Request id to its blocks, which lie anywhere."""


class Engine:
    """The two ends of the connector, called in the order in which vLLM calls them."""

    def __init__(self, dtype=torch.float32, device="cpu"):
        group = SimpleNamespace(kv_cache_spec=SimpleNamespace(block_size=BLOCK_SIZE))
        transfer = SimpleNamespace(get_from_extra_config=lambda key, default: default)
        ends = [
            HiddenStatesConnector(
                SimpleNamespace(kv_transfer_config=transfer),
                role,
                SimpleNamespace(kv_cache_groups=[group]),
            )
            for role in (KVConnectorRole.SCHEDULER, KVConnectorRole.WORKER)
        ]
        self.scheduler, self.worker = ends
        slots = torch.arange(10 * BLOCK_SIZE).view(10, 1, BLOCK_SIZE, 1)
        self.worker._cache = (slots * 10 + torch.arange(WIDTH)).to(device, dtype)

    def add(self, name, positions):
        request = SimpleNamespace(
            request_id=name, kv_transfer_params={"hidden_positions": positions}
        )
        self.scheduler.on_new_request(request)
        return request

    def step(self, computed, finishing=(), aborting=()):
        """One step; `computed` is request id to (positions before, positions in this step)."""
        output = SimpleNamespace(
            scheduled_new_reqs=[],
            scheduled_cached_reqs=SimpleNamespace(
                req_ids=list(computed), num_computed_tokens=[n for n, _ in computed.values()]
            ),
            num_scheduled_tokens={name: n for name, (_, n) in computed.items()},
            kv_connector_block_state=SimpleNamespace(get_block_ids=lambda name: (BLOCKS[name],)),
        )
        plan = self.scheduler.build_connector_meta(output)
        self.worker.bind_connector_metadata(pickle.loads(pickle.dumps(plan)))
        exported = self.worker.build_connector_worker_meta()
        self.worker.wait_for_save()
        self.worker.clear_connector_metadata()
        for request in aborting:
            self.finish(request)
        results = [self.finish(request) for request in finishing]
        self.scheduler.update_connector_output(
            SimpleNamespace(kv_connector_worker_meta=pickle.loads(pickle.dumps(exported)))
        )
        return results

    def finish(self, request):
        delayed, result = self.scheduler.request_finished_all_groups(request, ([],))
        assert not delayed
        return result

    def holds_nothing(self):
        end = self.scheduler
        return not (end._live or end._wanted or end._arrived or end._unfilled)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return request.param


@pytest.fixture
def engine(device):
    return Engine(device=device)


def expected(name, positions, dtype=torch.float32):
    """Closed form: position p lies in slot block * 4 + p % 4, and holds slot * 10 + column."""
    return torch.tensor(
        [
            [(BLOCKS[name][p // 4] * 4 + p % 4) * 10 + column for column in range(WIDTH)]
            for p in positions
        ],
        dtype=dtype,
    )


def rows(result):
    dtype = getattr(torch, result[DTYPE_KEY])
    return torch.frombuffer(bytearray(result[ROWS_KEY]), dtype=dtype).view(-1, WIDTH)


def test_a_request_that_ends_with_its_prompt_gets_its_rows(engine):
    request = engine.add("a", [9, 0, 5, 9])
    (result,) = engine.step({"a": (0, 10)}, finishing=[request])
    torch.testing.assert_close(rows(result), expected("a", [9, 0, 5, 9]))
    assert engine.holds_nothing()


def test_rows_wait_for_a_request_that_goes_on(engine):
    request = engine.add("a", [3])
    engine.step({"a": (0, 10)})
    engine.step({"a": (10, 1)})
    (result,) = engine.step({"a": (11, 1)}, finishing=[request])
    torch.testing.assert_close(rows(result), expected("a", [3]))
    assert engine.holds_nothing()


def test_rows_are_read_in_the_step_that_computes_the_last_of_them(engine):
    request = engine.add("a", [1, 8])
    engine.worker._cache[7, 0, 1] = -1  # position 1 is written by the first step
    engine.step({"a": (0, 6)})
    engine.worker._cache[7, 0, 1] = 5
    (result,) = engine.step({"a": (6, 4)}, finishing=[request])
    assert rows(result)[0].tolist() == [5, 5, 5]
    torch.testing.assert_close(rows(result)[1:], expected("a", [8]))


def test_rows_of_cached_positions_are_read_too(engine):
    request = engine.add("a", [0, 2])
    (result,) = engine.step({"a": (8, 2)}, finishing=[request])
    torch.testing.assert_close(rows(result), expected("a", [0, 2]))


def test_requests_of_one_step_get_their_own_rows(engine):
    requests = [engine.add("a", [0, 1]), engine.add("b", [6])]
    results = engine.step({"a": (0, 10), "b": (0, 7)}, finishing=requests)
    torch.testing.assert_close(rows(results[0]), expected("a", [0, 1]))
    torch.testing.assert_close(rows(results[1]), expected("b", [6]))


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_an_aborted_request_leaves_nothing_behind(engine, when):
    request = engine.add("a", [3])
    if when == "before":
        engine.finish(request)
    elif when == "during":
        engine.step({"a": (0, 10)}, aborting=[request])
    else:
        engine.step({"a": (0, 10)})
        engine.finish(request)
        engine.step({})
    engine.step({})
    assert engine.holds_nothing()


def test_a_request_without_positions_gets_no_rows(engine):
    request = SimpleNamespace(request_id="a", kv_transfer_params=None)
    engine.scheduler.on_new_request(request)
    (result,) = engine.step({"a": (0, 10)}, finishing=[request])
    assert result == {}


def test_bfloat16_rows_keep_every_bit(device):
    engine = Engine(torch.bfloat16, device)
    request = engine.add("b", [0, 7])
    (result,) = engine.step({"b": (0, 8)}, finishing=[request])
    assert result[DTYPE_KEY] == "bfloat16"
    torch.testing.assert_close(rows(result), expected("b", [0, 7], torch.bfloat16), rtol=0, atol=0)


def test_ranks_without_rows_do_not_hide_those_of_rank_zero():
    empty, full = ExportedRows(), ExportedRows()
    full.fill({"a": [31]}, torch.ones(1, WIDTH), None)
    assert list(empty.aggregate(full).by_request()) == ["a"]
    assert list(full.aggregate(empty).by_request()) == ["a"]


@pytest.mark.gpu
def test_rows_are_gathered_before_a_later_step_overwrites_their_blocks():
    engine = Engine(device="cuda")
    request = engine.add("a", [3, 9])
    cache = engine.worker._cache
    torch.cuda._sleep(100_000_000)  # the gather waits on the device behind this
    wait_for_save = engine.worker.wait_for_save

    def save_and_go_on():
        wait_for_save()
        cache.fill_(-1)  # the next step, on the same stream

    engine.worker.wait_for_save = save_and_go_on
    (result,) = engine.step({"a": (0, 10)}, finishing=[request])
    torch.testing.assert_close(rows(result), expected("a", [3, 9]))
