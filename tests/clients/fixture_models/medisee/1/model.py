"""Answers by rule, so that a test knows the answer; the prompt's first word chooses.

bright: the pixels above 127. nothing: no pixel. fail CODE [S]: that error, after S seconds.
unavailable K KEY: K refusals, then as bright. sleep S KEY: S seconds, then as bright. seen KEY: how
many requests with KEY came and how many of them were cancelled, in the box's first two numbers.
"""

import collections
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

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
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        prompt = pb_utils.get_input_tensor_by_name(request, "prompt").as_numpy()[0].decode()
        word, *rest = prompt.split()
        error = None
        if word == "fail":
            time.sleep(float(rest[1]) if len(rest) > 1 else 0)
            error = pb_utils.TritonError(
                f"asked for {rest[0]}", getattr(pb_utils.TritonError, rest[0])
            )
        elif word in ("unavailable", "sleep"):
            self.requests[rest[1]] += 1
            if word == "sleep":
                self.sleep(float(rest[0]), rest[1], sender)
            elif self.requests[rest[1]] <= int(rest[0]):
                error = pb_utils.TritonError("busy", pb_utils.TritonError.UNAVAILABLE)
        if error is not None:
            sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)
            return
        mask = (image.mean(axis=2) > 127) & (word != "nothing")
        box = [-1.5, 2.25, 30.0, 40.0]
        if word == "seen":
            box[:2] = self.requests[rest[0]], self.cancelled[rest[0]]
        tensors = [
            pb_utils.Tensor("masks", np.packbits(mask[np.newaxis], axis=-1)),
            pb_utils.Tensor("boxes_xyxy", np.array([box], np.float32)),
            pb_utils.Tensor("scores", np.array([0.75 * mask.any()], np.float32)),
        ]
        sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL)

    def sleep(self, seconds, key, sender):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if sender.is_cancelled():
                self.cancelled[key] += 1
                return
            time.sleep(0.02)
