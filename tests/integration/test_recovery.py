"""The engine dies: callers are told so, and a moment later the server answers as before.

The last file of this folder: a second death soon after would leave the engine down.
"""

import json
import time
import urllib.request

import numpy as np
import pytest
import saymask

from tests.integration.probe import IN_FLIGHT, metric, picture, wait_until, wait_until_idle
from tests.processes import engine_and_worker

pytestmark = pytest.mark.server

RESTARTS = "saymask_mllm_engine_restarts_total"


def http_status(server):
    image = picture(2, 2)
    body = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": [2, 2, 1],
                "data": image.ravel().tolist(),
            },
            {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["where"]},
        ]
    }
    message = urllib.request.Request(
        f"http://{server.http_url}/v2/models/medisee/infer", json.dumps(body).encode()
    )
    opener = urllib.request.OpenerDirector()  # one that takes any status for an answer
    opener.add_handler(urllib.request.HTTPHandler())
    with opener.open(message, timeout=60) as response:
        return response.status


def test_a_killed_engine_is_unavailable_and_then_answers_as_before(server):
    image, prompt = picture(90, 70, seed=9), "where is the cerebellum"
    with saymask.Client(server.grpc_url, timeout_s=60, retries=0) as client:
        before = client.segment(image, prompt)
        explained = "".join(client.explain(image, prompt))
        wait_until_idle(server)
        restarts = metric(server, RESTARTS)

        engine, _ = engine_and_worker(server._process.pid)
        engine.suspend()  # or the text may be complete before the kill
        stream = client.explain(image, "tell me everything")
        wait_until(lambda: metric(server, IN_FLIGHT) == 1, 20, "a request in the engine")
        engine.kill()
        with pytest.raises(saymask.Unavailable, match="the engine died while it worked"):
            list(stream)

        refused = []
        deadline = time.monotonic() + 240
        while True:
            try:
                after = client.segment(image, prompt)
                break
            except saymask.Unavailable as error:
                refused.append(error)
                if len(refused) == 1:
                    assert http_status(server) in (503, 200)
            assert time.monotonic() < deadline
            time.sleep(0.5)

        assert refused, "the engine was never away"
        assert all(error.code == "UNAVAILABLE" for error in refused)
        assert "being restarted" in str(refused[-1])
        assert (after.mask != before.mask).mean() < 1e-3
        np.testing.assert_allclose(after.box_xyxy, before.box_xyxy, rtol=1e-4, atol=1e-3)
        assert "".join(client.explain(image, prompt)) == explained
    wait_until(lambda: metric(server, RESTARTS) == restarts + 1, 5, "one more restart")
    wait_until_idle(server)
    assert server.poll() is None
