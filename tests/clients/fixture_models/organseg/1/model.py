"""Answers by rule, so that a test knows the answer: one result for each part between " and ".

A part is an outcome and maybe an organ, "liver" or "right kidney"; what is found is the pixels
above 127. The margin is the request's least_margin, -1 where there was none. fail CODE: that
error. short: a label too few.
"""

import numpy as np
import triton_python_backend_utils as pb_utils

CODES = {"liver": "10200004", "right kidney": "64033007:24028007", "": ""}


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        prompt = pb_utils.get_input_tensor_by_name(request, "prompt").as_numpy()[0].decode()
        least_margin = pb_utils.get_input_tensor_by_name(request, "least_margin")
        if prompt.startswith("fail"):
            code = getattr(pb_utils.TritonError, prompt.split()[1])
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("asked for it", code))
        questions = prompt.split(" and ")
        outcomes, _, labels = zip(*(part.partition(" ") for part in questions), strict=True)
        found = np.array([outcome == "found" for outcome in outcomes])
        count = len(questions)
        masks = (image.mean(axis=2) > 127) & found[:, None, None]
        margin = -1.0 if least_margin is None else least_margin.as_numpy()[0]
        outputs = {
            "masks": np.packbits(masks, axis=-1),
            "boxes_xyxy": np.outer(found, [-1.5, 2.25, 30, 40]).astype(np.float32),
            "scores": (0.75 * found).astype(np.float32),
            "outcomes": texts(outcomes),
            "labels": texts(labels[1:] if prompt.endswith("short") else labels),
            "snomed_codes": texts(CODES.get(label, "") for label in labels),
            "margins": np.full(count, margin, np.float32),
            "similarities": np.tile(np.float32([0.5, 0.25, -0.125]), (count, 1)),
            "presences": np.where(found, 0.875, 0.125).astype(np.float32),
            "answers": texts(f"It is {outcome}." for outcome in outcomes),
            "questions": texts(questions),
            "cache_version": texts(["c0ffee"]),
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        )


def texts(values):
    return np.array([value.encode() for value in values], np.object_)
