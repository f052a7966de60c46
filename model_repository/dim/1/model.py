"""Triton Python backend model: runs the network on the CPU with OpenVINO, MNN or ONNX Runtime.

Everything that serving adds to the network (padding, normalisation, rounding) is inside
model.onnx and model.mnn, so this file only moves tensors and refuses what cannot be matted.
"""

import ctypes
import hashlib
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

Engine = Callable[[np.ndarray, np.ndarray], np.ndarray]
CPU_INFO = Path("/proc/cpuinfo")
MNN_MODEL = "model.mnn"
USED = b"used_dltensor"
"""DLPack's name for a capsule whose array was taken."""
STRIDE = 32
"""The graph pads both sides of an image to multiples of this."""

# OpenVINO would report each import to its makers, by this module, and ONNX Runtime each run.
sys.modules.setdefault("openvino_telemetry", None)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load_engine(name: str, folder: Path, threads: int, precision: str) -> Engine:
    """Return the function (image, trimap) -> alpha that runs the model in a version's folder.

    `threads` is 0 for all cores. `precision` is "fp32", or "auto" for bf16 where the processor
    computes in it and the engine can (OpenVINO), and FP32 elsewhere; "int8" is the same for a graph
    that was exported so.
    """
    if precision == "int8" and not re.search(r"\bavx(512)?_vnni\b", CPU_INFO.read_text()):
        raise pb_utils.TritonModelException(
            "precision is 'int8', but this processor has no VNNI (avx512_vnni, "
            "avx_vnni): sums would overflow; export again without --precision int8"
        )
    if name == "mnn":
        return load_mnn(folder / MNN_MODEL, threads)
    if name == "openvino":
        return load_openvino(folder / "model.onnx", threads, precision)
    if name == "onnxruntime":
        return load_onnxruntime(folder / "model.onnx", threads)
    raise pb_utils.TritonModelException(
        f"parameter engine is {name!r}, expected 'cpu', 'openvino' or 'onnxruntime'"
    )


def load_openvino(model: Path, threads: int, precision: str) -> Engine:
    """Return the function that runs the graph with OpenVINO."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    # Where it is not told, OpenVINO computes in FP16 on Arm, which no export has compared.
    if precision == "fp32" or not computes_in_bf16():
        settings["INFERENCE_PRECISION_HINT"] = "f32"

    def prepare() -> object:
        return openvino.compile_model(model, "CPU", settings).create_infer_request()

    request = prepare()

    def run(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        nonlocal request
        request = request or prepare()
        try:
            # Its infer() returns the alpha before if memory runs out and there is one thread.
            request.start_async({"image": image, "trimap": trimap}, share_inputs=True)
            request.wait()
            return request.get_output_tensor().data.copy()
        except Exception:
            request = None  # all that came after would be wrong
            raise

    return run


def load_onnxruntime(model: Path, threads: int) -> Engine:
    """Return the function that runs the graph with ONNX Runtime, in the precision it has."""
    try:
        import onnxruntime
    except ImportError as error:
        raise pb_utils.TritonModelException(
            f"parameter engine is 'onnxruntime', which the server lacks ({error}): "
            "pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image, trimap: session.run(["alpha"], {"image": image, "trimap": trimap})[0]


def load_mnn(model: Path, threads: int) -> Engine:
    """Return the function that runs what `export.mnn` made of the graph, with MNN in FP32."""
    import MNN

    settings = {"backend": "CPU", "numThread": threads or physical_cores(), "precision": "high"}
    network = MNN.nn.load_module_from_file(
        str(model),
        ["image", "trimap"],
        ["alpha"],
        runtime_manager=MNN.nn.create_runtime_manager((settings,)),
    )

    def run(*pair: np.ndarray) -> np.ndarray:
        inputs = [MNN.expr.const(x, x.shape, MNN.expr.NCHW, MNN.expr.uint8) for x in pair]
        outputs = network.forward(inputs)
        if not outputs:
            # Memory ran out in the midst, and MNN crashes with the next picture. Once this one is
            # answered the process ends, which the launcher notices.
            threading.Timer(1, os._exit, [1]).start()
            raise MemoryError(f"not enough memory for {pair[0].shape[2]}x{pair[0].shape[1]}")
        return np.array(outputs[0].read())

    # The first run picks how each layer is computed, and that should suit what comes, not 64x64.
    run(np.zeros((1, 256, 256, 3), np.uint8), np.full((1, 256, 256, 1), 128, np.uint8))
    return run


def physical_cores() -> int:
    """Return on how many cores this process may run; two threads of one core count once."""
    siblings = "/sys/devices/system/cpu/cpu{}/topology/core_cpus_list"
    files = [Path(siblings.format(number)) for number in os.sched_getaffinity(0)]
    return len({file.read_text() if file.exists() else file for file in files})


def fastest(precision: str, entry: dict) -> str:
    """Return the engine that is fastest on this processor at what the version is computed in.

    That is OpenVINO, in bf16 and in eight bits. In FP32 it is MNN on AVX2, if the export made a
    model.mnn; of AVX-512, which MNN's wheel does not use, and Arm that has not been measured.
    """
    if precision == "int8" or MNN_MODEL not in entry.get("files", ()):
        return "openvino"
    flags = CPU_INFO.read_text().split()
    if "avx2" not in flags or "avx512f" in flags or (precision == "auto" and computes_in_bf16()):
        return "openvino"
    try:
        import MNN  # noqa: F401
    except ImportError as error:
        pb_utils.Logger.log_warn(
            "OpenVINO serves, MNN would be twice as fast after `sh setup.sh -e '.[server]'` "
            f"({error})"
        )
        return "openvino"
    return "mnn"


def computes_in_bf16() -> bool:
    """Say if OpenVINO computes in bf16 on this processor where it is not told."""
    import openvino

    hint = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return hint == openvino.Type.bf16


def check_files(folder: Path) -> dict:
    """Return what the export recorded of model.onnx; empty if there is no record.

    Refuses files that are not those of the export: half copied, damaged, or of another one.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return {}
    entries = json.loads(manifest.read_text())
    if "model.onnx" not in entries:
        targets = " and ".join(entry["target"] for entry in entries.values())
        raise pb_utils.TritonModelException(
            f"{folder} was exported for {targets} only: start with --model-config-name=tensorrt "
            "for tensorrt, or export for cpu"
        )
    for name, expected in entries["model.onnx"]["files"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise pb_utils.TritonModelException(
                f"{path} is not the file that {manifest.name} names: "
                "copy the whole folder again, or export it again"
            )
    return entries["model.onnx"]


def own_precision(precision: str, entry: dict) -> str:
    """Return the precision for this version; that of config.pbtxt is for all versions.

    A graph in eight bits stays "int8", and "auto" is for those that the export found equal in bf16.
    """
    if precision not in ("auto", "fp32", "int8"):
        raise pb_utils.TritonModelException(
            f"parameter precision is {precision!r}, expected 'auto', 'fp32' or 'int8'"
        )
    if not entry:
        return precision
    if entry.get("precision") == "int8":
        return "int8"
    equal_in_bf16 = isinstance(entry.get("bf16"), dict)
    return "auto" if precision != "fp32" and equal_in_bf16 else "fp32"


def read_tensor(tensor: object) -> np.ndarray:
    """Return a tensor's array.

    By DLPack, as in `write_tensor`: the pip-installed Triton was built for NumPy 1, and finds
    nothing in arrays of NumPy 2.
    """
    return np.from_dlpack(tensor)


def write_tensor(name: str, array: np.ndarray) -> object:
    """Return a tensor that holds the array, which must not be read-only."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Triton 2.51 gives it another name, by which NumPy would not know that it is used.
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), USED)
    return tensor


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        engine, threads, precision, max_pixels = (
            parameters[key]["string_value"]
            for key in ("engine", "threads", "precision", "max_pixels")
        )
        folder = Path(args["model_repository"]) / args["model_version"]
        entry = check_files(folder)
        precision = own_precision(precision, entry)
        if engine == "cpu":
            engine = fastest(precision, entry)
        pb_utils.Logger.log_info(f"{folder} is run by {engine}, precision {precision}")
        self.engine = load_engine(engine, folder, int(threads), precision)
        self.max_pixels = int(max_pixels)

    def execute(self, requests: list) -> list:
        """Answer requests, each by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: object) -> object:
        image, trimap = (
            read_tensor(pb_utils.get_input_tensor_by_name(request, name))
            for name in ("image", "trimap")
        )
        try:
            self._check_sizes(image.shape, trimap.shape)
            alpha = self._matte(image, trimap)
        except ValueError as error:
            return self._error(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # whatever the engine raises, memory that runs out among it
            pb_utils.Logger.log_error(traceback.format_exc())
            return self._error(f"the network failed: {error}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse([write_tensor("alpha", alpha)])

    @staticmethod
    def _error(reason: str, code: int) -> object:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, code))

    def _check_sizes(self, image: tuple[int, ...], trimap: tuple[int, ...]) -> None:
        """Refuse shapes that cannot be matted. Triton has checked types and ranks before."""
        height, width = image[1:3]
        if trimap[1:3] != image[1:3]:
            raise ValueError(
                f"image is {width}x{height}, trimap is {trimap[2]}x{trimap[1]}: make them equal"
            )
        if height * width == 0:
            raise ValueError(f"image is {width}x{height}: it has no pixels")
        padded_height, padded_width = (-(-side // STRIDE) * STRIDE for side in (height, width))
        pixels = padded_height * padded_width
        if pixels > self.max_pixels:
            raise ValueError(
                f"image is {width}x{height}, padded to {padded_width}x{padded_height} = {pixels} "
                f"pixels, this server takes at most {self.max_pixels}: send a smaller image or "
                "raise max_pixels in config.pbtxt"
            )

    def _matte(self, images: np.ndarray, trimaps: np.ndarray) -> np.ndarray:
        """Run N images one by one.

        Together they would take as long on a CPU, and in bf16 an image's alpha would depend on
        the others: the engine adds in another order.
        """
        return np.concatenate(
            [self.engine(images[i : i + 1], trimaps[i : i + 1]) for i in range(len(images))]
        )
