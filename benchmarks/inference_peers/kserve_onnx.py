"""KServe's server with models that onnxruntime runs: ``kserve_onnx.py HTTP_PORT GRPC_PORT NAME=FILE …``."""

from __future__ import annotations

import sys

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Onnx(Model):
    """One ONNX file, run where KServe's examples run theirs: in the event loop's thread."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            payload = InferRequest.from_grpc(payload)
        inputs = {one.name: one.as_numpy() for one in payload.inputs}
        names = [one.name for one in self.session.get_outputs()]
        outputs = []
        for name, array in zip(names, self.session.run(names, inputs), strict=True):
            output = InferOutput(name, list(array.shape), "FP32")
            output.set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(payload.id or "", self.name, outputs)


if __name__ == "__main__":
    http_port, grpc_port, *models = sys.argv[1:]
    server = ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1, enable_latency_logging=False)
    server.start([Onnx(*model.split("=", 1)) for model in models])
