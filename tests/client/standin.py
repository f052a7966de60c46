"""A stand-in for the model that Triton's Python backend runs: alpha is the image's green.

Of each pixel, or the mean of all that it was sent, so that tiles disagree where they overlap.

Quick, and every byte of its answers is known. Known pixels keep the trimap's value, as the real
model does it. Copied into a model repository by `conftest.make_repository`, with the real model as
`shipped`.
"""

import json
import time

import numpy as np
import triton_python_backend_utils as pb
from shipped import read_tensor, write_tensor


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = config["parameters"]
        self.seconds = float(parameters["seconds"]["string_value"])
        self.error = parameters["error"]["string_value"]
        self.answers_mean = parameters["answer"]["string_value"] == "mean"
        self.max_pixels = int(parameters["max_pixels"]["string_value"])
        self.alpha_type = pb.triton_string_to_numpy(config["output"][0]["data_type"])

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        time.sleep(self.seconds)
        if self.error:
            return pb.InferenceResponse([], pb.TritonError(self.error))
        image, trimap = (
            read_tensor(pb.get_input_tensor_by_name(request, name)) for name in ("image", "trimap")
        )
        if image[0, ..., 0].size > self.max_pixels:
            reason = f"this server takes at most {self.max_pixels}"
            return pb.InferenceResponse([], pb.TritonError(reason))
        known = (trimap == 0) | (trimap == 255)
        green = image[..., 1:2]
        alpha = np.where(known, trimap, green.mean().round() if self.answers_mean else green)
        return pb.InferenceResponse([write_tensor("alpha", alpha.astype(self.alpha_type))])
