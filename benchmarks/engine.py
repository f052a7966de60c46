"""How long a TensorRT engine takes on this GPU alone, pictures and answers staying on the GPU.

Builds the exported graph, saves its alphas of pictures, times it by CUDA's events at every shape,
launched kernel by kernel and as a CUDA graph, and its layers; each result is written at once.
`python -m benchmarks gpu` runs it and judges the results. Needs TensorRT, NumPy and Polygraphy
alone, and no Python newer than 3.9, for the sake of TensorRT 8.6.

examples:
  python -m benchmarks.engine out/fp16/model.onnx -o out/engine
  python -m benchmarks.engine out/fp16/model.onnx --shapes 1x1024x1024 --pictures pictures/*.npz
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from export.engine import CAPABILITY, Profile, as_text, build_engine, check_machine, size
from export.errors import ExportError, one_line
from export.references import read_arrays
from matting.files import write_whole

RECORD = "engine.json"
SHAPES = [(n, h, w) for h, w in ((512, 512), (1024, 1024), (1088, 1920)) for n in (1, 4, 8)]
WARMUP, RUNS = 5, 30
WARMUP_SECONDS = 0.3
"""At least: an idle GPU takes longer than a few launches of a millisecond to raise its clock."""
RELAXED = 2  # cudaStreamCaptureModeRelaxed


def example(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a random picture and trimap, a third unknown: N×H×W×3 and N×H×W×1 uint8."""
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return image, draw.choice(np.array([0, 128, 255], np.uint8), (*shape, 1))


def after_warmup(timed: Callable[[], float]) -> list[float]:
    """Return `RUNS` of what a function returns, after `WARMUP` calls or more that do not count."""
    warm = time.monotonic() + WARMUP_SECONDS
    for _ in range(WARMUP):
        timed()
    while time.monotonic() < warm:
        timed()
    return [timed() for _ in range(RUNS)]


class Cuda:
    """CUDA's runtime: `cuda.StreamCreate` is `cudaStreamCreate`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def __getattr__(self, name: str) -> Callable[..., None]:
        function = getattr(self.library, "cuda" + name)

        def call(*arguments: object) -> None:
            if code := function(*arguments):
                raise ExportError(f"cuda{name} failed with error {code}")

        return call

    def new(self, create: str) -> ctypes.c_void_p:
        """Return a new handle: a stream or an event."""
        handle = ctypes.c_void_p()
        getattr(self, create)(ctypes.byref(handle))
        return handle

    def time(self, launch: Callable[[], None], stream: ctypes.c_void_p) -> list[float]:
        """Return the milliseconds of each of `RUNS` launches."""
        start, end, taken = self.new("EventCreate"), self.new("EventCreate"), ctypes.c_float()

        def timed() -> float:
            self.EventRecord(start, stream)
            launch()
            self.EventRecord(end, stream)
            self.StreamSynchronize(stream)
            self.EventElapsedTime(ctypes.byref(taken), start, end)
            return round(taken.value, 4)

        return after_warmup(timed)

    def as_graph(self, launch: Callable[[], None], stream: ctypes.c_void_p) -> Callable[[], None]:
        """Capture what a launch does; return a launch of all of it at once.

        Raises
        ------
        ExportError
            It does what a graph cannot; the stream is as it was.
        """
        captured, graph = ctypes.c_void_p(), ctypes.c_void_p()
        self.StreamBeginCapture(stream, RELAXED)
        try:
            launch()
        finally:
            ended = self.library.cudaStreamEndCapture(stream, ctypes.byref(captured))
            self.library.cudaGetLastError()  # else it would be the next call's
        if ended:
            raise ExportError(f"cudaStreamEndCapture failed with error {ended}")
        # Not GraphInstantiate, which has other arguments in CUDA 11.
        self.GraphInstantiateWithFlags(ctypes.byref(graph), captured, ctypes.c_ulonglong(0))
        return lambda: self.GraphLaunch(graph, stream)


class Runner:
    """An engine, and the pictures on the GPU that it answers."""

    def __init__(self, engine: bytes, trt: ModuleType, cuda: Cuda) -> None:
        self.trt, self.cuda = trt, cuda
        self.stream = self.cuda.new("StreamCreate")
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self.engine = runtime.deserialize_cuda_engine(engine)
        self.context = self.engine and self.engine.create_execution_context()
        if not self.context:
            raise ExportError("TensorRT cannot run the engine that it built: it says why above")
        self.arrays: dict[str, object] = {}

    def put(self, image: np.ndarray, trimap: np.ndarray) -> None:
        """Copy pictures to the GPU, N×H×W×3 and N×H×W×1 uint8, and make room for their alpha."""
        from polygraphy.cuda import DeviceArray
        from polygraphy.exception import PolygraphyException

        for array in self.arrays.values():
            array.free()
        try:
            self.arrays = {
                name: DeviceArray(shape=pixels.shape, dtype=np.uint8)
                for name, pixels in (("image", image), ("trimap", trimap), ("alpha", trimap))
            }
        except PolygraphyException as error:
            raise ExportError(one_line(error)) from error
        for name, pixels in (("image", image), ("trimap", trimap)):
            self.arrays[name].copy_from(np.ascontiguousarray(pixels))
            if not self.context.set_input_shape(name, pixels.shape):
                raise ExportError(f"the engine was not built for {name} {pixels.shape}")
        for name, array in self.arrays.items():
            self.context.set_tensor_address(name, array.ptr)

    def launch(self) -> None:
        if not self.context.execute_async_v3(self.stream.value):
            raise ExportError("the engine refuses to start")

    def run(self) -> None:
        self.launch()
        self.cuda.StreamSynchronize(self.stream)

    def alpha(self) -> np.ndarray:
        """Return the answer to what was put, N×H×W×1 uint8."""
        self.run()
        return self.arrays["alpha"].numpy()

    def time(self, shape: tuple[int, int, int]) -> Iterator[tuple[str, list[float]]]:
        """Yield each way of launching with its milliseconds."""
        self.put(*example(shape))
        yield "ms", self.cuda.time(self.launch, self.stream)
        graph = self.cuda.as_graph(self.launch, self.stream)
        yield "graph_ms", self.cuda.time(graph, self.stream)

    def time_layers(self, shape: tuple[int, int, int]) -> dict[str, float]:
        """Return the median milliseconds of each layer, in their order."""
        layers: dict[str, list[float]] = {}

        class Profiler(self.trt.IProfiler):
            def report_layer_time(self, name: str, milliseconds: float) -> None:
                layers.setdefault(name, []).append(milliseconds)

        self.put(*example(shape))
        self.context.profiler = profiler = Profiler()
        for _ in range(WARMUP + RUNS):
            self.run()
        del profiler  # the context does not keep it alive
        return {name: round(statistics.median(ms[WARMUP:]), 4) for name, ms in layers.items()}


def measure(
    onnx: Path,
    shapes: list[tuple[int, int, int]],
    pictures: list[Path],
    folder: Path,
    timing_cache: Path | None,
) -> None:
    """Build, ask and time an engine; alphas become NAME.npy in the folder, H×W uint8.

    `RECORD` there is written anew with every result. What fails at one shape leaves the others.
    """
    known = {picture.stem: read_arrays(picture, "image", "trimap") for picture in pictures}
    trt = check_machine("tensorrt", CAPABILITY)
    from polygraphy.cuda import wrapper

    cuda = Cuda(wrapper().handle)  # before minutes of work, not after
    asked = [(1, *trimap.shape) for _, trimap in known.values()]
    largest = tuple(int(side) for side in np.max([Profile.best, *shapes, *asked], axis=0))
    is_cached = timing_cache is not None and timing_cache.exists()
    started = time.perf_counter()
    profile = Profile(largest=largest)
    engine, facts = build_engine(onnx, "tensorrt", "fp16", profile, timing_cache=timing_cache)
    took = round(time.perf_counter() - started, 1)
    facts.update(build_s=took, timing_cache=is_cached, bytes=len(engine))
    record: dict = {"engine": facts, "shapes": {}, "failed": {}}

    def note(line: str) -> None:
        write_whole(folder / RECORD, json.dumps(record).encode())
        print(line, flush=True)

    note(f"built in {took} s")
    runner = Runner(engine, trt, cuda)
    try:
        for name, (image, trimap) in known.items():
            runner.put(image[None], trimap[None, ..., None])
            np.save(folder / f"{name}.npy", runner.alpha()[0, ..., 0])
    except ExportError as error:
        record["failed"]["pictures"] = str(error)
        note(f"pictures: {error}")
    for shape in shapes:
        times = record["shapes"][as_text(shape)] = {}
        try:
            for way, milliseconds in runner.time(shape):
                times[way] = milliseconds
                note(f"{as_text(shape)}: {way} {statistics.median(milliseconds):.3f}")
        except ExportError as error:
            record["failed"][as_text(shape)] = str(error)
            note(f"{as_text(shape)}: {error}")
    record["layers"] = [as_text(shapes[0]), runner.time_layers(shapes[0])]
    note(f"layers of {as_text(shapes[0])}")


def add_shapes_argument(parser: argparse.ArgumentParser) -> None:
    """Add what is timed."""
    parser.add_argument(
        "--shapes",
        type=size,
        nargs="+",
        default=SHAPES,
        metavar="NxHxW",
        help="layers are timed at the first ({})".format(" ".join(map(as_text, SHAPES))),
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("onnx", type=Path, help="exported in FP16, with its weights beside it")
    add_shapes_argument(parser)
    parser.add_argument(
        "--pictures", type=Path, nargs="+", default=[], metavar="NPZ", help="files of export.parity"
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="cache of kernel timings, read if it exists and updated for faster builds",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/engine"),
        metavar="DIR",
        help="folder for the results (%(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        options.onnx.stat()
        options.output.mkdir(parents=True, exist_ok=True)
        measure(
            options.onnx, options.shapes, options.pictures, options.output, options.timing_cache
        )
        print(options.output / RECORD)
    except (ExportError, OSError) as error:
        print(f"benchmarks.engine: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
