"""A model of MLServer's that onnxruntime runs; its models are configured to name it."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    """One ONNX file, run where MLServer's own runtimes run theirs: in the event loop's thread."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        names = [one.name for one in self.session.get_outputs()]
        outputs = self.session.run(names, inputs)
        encoded = [NumpyCodec.encode_output(name, array) for name, array in zip(names, outputs, strict=True)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=encoded)
