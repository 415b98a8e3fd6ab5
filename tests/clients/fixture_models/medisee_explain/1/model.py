"""Streams by rule, so that a test knows the pieces; the prompt's first word chooses.

slow KEY: a piece each 20 ms for 10 s. break K: K pieces, then UNAVAILABLE. fail CODE: that error.
unavailable K KEY: K refusals, then the pieces. seen KEY: how many requests with KEY came and how
many of them were cancelled, as a piece each. Anything else: its words.
"""

import collections
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

from serving.error_text import tag

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        self.requests = collections.Counter()
        self.cancelled = collections.Counter()

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request,)).start()

    def answer(self, request):
        sender = request.get_response_sender()
        prompt = pb_utils.get_input_tensor_by_name(request, "prompt").as_numpy()[0].decode()
        word, *rest = prompt.split()
        pieces, error = [f"{piece} " for piece in prompt.split()], None
        if word == "break":
            pieces = [f"{index} " for index in range(int(rest[0]))]
            error = ("broken", "UNAVAILABLE")
        elif word == "fail":
            pieces, error = [], (f"asked for {rest[0]}", rest[0])
        elif word == "unavailable":
            self.requests[rest[1]] += 1
            if self.requests[rest[1]] <= int(rest[0]):
                pieces, error = [], ("busy", "UNAVAILABLE")
        elif word == "slow":
            self.requests[rest[0]] += 1
            pieces = self.slow_pieces(rest[0], sender)
        elif word == "seen":
            pieces = [f"{self.requests[rest[0]]} ", f"{self.cancelled[rest[0]]}"]
        for piece in pieces:
            tensor = pb_utils.Tensor("text", np.array([piece.encode()], np.object_))
            sender.send(pb_utils.InferenceResponse([tensor]))
        if error is None:
            sender.send(flags=FINAL)
        else:
            text, code = error
            failure = pb_utils.TritonError(tag(text, code), getattr(pb_utils.TritonError, code))
            sender.send(pb_utils.InferenceResponse(error=failure), flags=FINAL)

    def slow_pieces(self, key, sender):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if sender.is_cancelled():
                self.cancelled[key] += 1
                return
            time.sleep(0.02)
            yield "tick "
