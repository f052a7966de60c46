"""A stand-in for the model that Triton's Python backend runs: alpha is the image's green channel.

Quick, and every byte of its answers is known. Known pixels keep the trimap's value, as the real
model does it. Copied into a model repository by `conftest.make_repository`.
"""

import json
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = config["parameters"]
        self.seconds = float(parameters["seconds"]["string_value"])
        self.error = parameters["error"]["string_value"]
        self.alpha_type = pb.triton_string_to_numpy(config["output"][0]["data_type"])

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        time.sleep(self.seconds)
        if self.error:
            return pb.InferenceResponse([], pb.TritonError(self.error))
        image, trimap = (
            pb.get_input_tensor_by_name(request, name).as_numpy() for name in ("image", "trimap")
        )
        known = (trimap == 0) | (trimap == 255)
        alpha = np.where(known, trimap, image[..., 1:2])
        return pb.InferenceResponse([pb.Tensor("alpha", alpha.astype(self.alpha_type))])
