"""A client that says exactly what it is told, over gRPC."""

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.integration.probe import tensor

_TYPES = {"FP32": "<f4", "UINT8": "u1", "INT32": "<i4", "BOOL": "?"}


class Chat:
    """One conversation."""

    def __init__(self, channel, name):
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.name = name

    def message(self, start=False, end=False, **given):
        """The request; plain values become tensors."""
        types = service_pb2.ModelInferRequest
        tensors = [tensor(key, _array(key, value)) for key, value in given.items()]
        message = types(
            model_name="mediround",
            id="test",
            inputs=[
                types.InferInputTensor(name=name, datatype=datatype, shape=shape)
                for name, datatype, shape, _ in tensors
            ],
            raw_input_contents=[content for *_, content in tensors],
        )
        if self.name is not None:
            message.parameters["sequence_id"].string_param = self.name
        message.parameters["sequence_start"].bool_param = start
        message.parameters["sequence_end"].bool_param = end
        return message

    def send(self, timeout_s=30, **given):
        """Output name -> array or text; `grpc.RpcError` where it is refused."""
        return read(self.stub.ModelInfer(self.message(**given), timeout=timeout_s))

    def later(self, timeout_s=30, **given):
        """The call, not waited for; `read(call.result())` has its outputs."""
        return self.stub.ModelInfer.future(self.message(**given), timeout=timeout_s)

    def go_on(self, attempts=5, **given):
        """A request after one that was broken off: Triton may drop the sequence with that one, and
        cancel the next request, too."""
        while True:
            try:
                return self.send(start=True, resume=True, **given)
            except grpc.RpcError as error:
                attempts -= 1
                if error.code() != grpc.StatusCode.CANCELLED or attempts == 0:
                    raise

    def start(self, image, prompt="segment the liver", **given):
        return self.send(start=True, image=image, prompt=prompt, **given)


def read(response):
    """Outputs of a response."""
    found = {}
    for output, content in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            found[output.name] = content[4:].decode()
        else:
            shape = list(output.shape)
            found[output.name] = np.frombuffer(content, _TYPES[output.datatype]).reshape(shape)
    return found


def _array(key, value):
    if isinstance(value, str | np.ndarray):
        packed = key == "mask" and value.ndim == 2
        return np.packbits(value, axis=-1)[None] if packed else value
    if isinstance(value, bool):
        return np.array([value])
    return np.array(value, np.float32 if isinstance(value, float) else np.int32).reshape(-1)
