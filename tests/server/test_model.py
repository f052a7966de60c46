"""What model.py answers over gRPC: right bytes, or the reason why not, and it lives on."""

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from server.launcher import LaunchError, Server, launch

SHIPPED = Path(__file__).parents[2] / "model_repository/dim"

Infer = Callable[[Server, np.ndarray, np.ndarray], np.ndarray]
RandomPair = Callable[..., tuple[np.ndarray, np.ndarray]]


def expected(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """What the tiny network of conftest.py computes."""
    return np.maximum(image[..., :1], trimap)


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(1, 1, 1), (5, 200, 1), (999, 500, 1), (20, 30, 8), (700, 700, 3)],
)
def test_alpha_of_any_size_and_count(
    tiny_server: Server,
    infer: Infer,
    random_pair: RandomPair,
    height: int,
    width: int,
    count: int,
) -> None:
    image, trimap = random_pair(height, width, count)
    alpha = infer(tiny_server, image, trimap)
    assert alpha.dtype == np.uint8
    np.testing.assert_array_equal(alpha, expected(image, trimap))


def zeros(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("image", "trimap", "reason"),
    [
        (zeros(1, 8, 8, 3, dtype=np.float32), zeros(1, 8, 8, 1), "data-type is 'FP32'.*'UINT8'"),
        (zeros(1, 8, 8, 3), zeros(1, 8, 8, 1, dtype=np.int32), "data-type is 'INT32'.*'UINT8'"),
        (
            zeros(8, 8, 3),
            zeros(8, 8, 1),
            "unexpected shape.* requires a batch dimension",
        ),
        (zeros(1, 8, 8, 4), zeros(1, 8, 8, 1), r"Expected \[-1,-1,-1,3\], got \[1,8,8,4\]"),
        (zeros(1, 8, 8, 3), zeros(1, 8, 8), "unexpected shape for input 'trimap'"),
        (zeros(1, 8, 8, 3), zeros(2, 8, 8, 1), "batch size"),
        (zeros(9, 8, 8, 3), zeros(9, 8, 8, 1), "batch-size must be <= 8"),
        (zeros(1, 8, 9, 3), zeros(1, 9, 8, 1), "image is 9x8, trimap is 8x9: make them equal"),
        (zeros(1, 0, 5, 3), zeros(1, 0, 5, 1), "image is 5x0: it has no pixels"),
        (zeros(1, 800, 700, 3), zeros(1, 800, 700, 1), "704x800 = 563200 pixels.*at most 524288"),
        (zeros(1, 16400, 1, 3), zeros(1, 16400, 1, 1), "1x16400, padded to 32x16416 = 525312"),
        (zeros(1, 8, 1000, 3), zeros(1, 8, 1000, 1), "the network failed: "),
    ],
    ids=[
        "float image",
        "int32 trimap",
        "no batch dimension",
        "four channels",
        "trimap without channel",
        "counts differ",
        "batch too large",
        "sizes differ",
        "no pixels",
        "too many pixels",
        "strip that padding makes too large",
        "network fails",
    ],
)
def test_bad_request_gets_the_reason_and_the_server_lives(
    tiny_server: Server,
    infer: Infer,
    random_pair: RandomPair,
    image: np.ndarray,
    trimap: np.ndarray,
    reason: str,
) -> None:
    with pytest.raises(InferenceServerException, match=reason):
        infer(tiny_server, image, trimap)
    good = random_pair(8, 8)
    np.testing.assert_array_equal(infer(tiny_server, *good), expected(*good))


def test_requests_at_once_get_what_they_get_alone(
    tiny_server: Server, infer: Infer, random_pair: RandomPair
) -> None:
    """None is joined with another."""
    one_size = [random_pair(9, 7, 1 + seed % 2, seed) for seed in range(12)]
    two_sizes = [random_pair(*shape, seed=seed) for seed in range(6) for shape in [(9, 7), (7, 9)]]
    with grpc.InferenceServerClient(tiny_server.grpc_url) as client:

        def executions() -> int:
            return client.get_inference_statistics("dim").model_stats[0].execution_count

        before = executions()
        compare_at_once(tiny_server, infer, one_size)
        compare_at_once(tiny_server, infer, two_sizes)
        assert executions() - before == len(one_size) + len(two_sizes)


def compare_at_once(
    server: Server, infer: Infer, pairs: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    with ThreadPoolExecutor(len(pairs)) as threads:
        alphas = list(threads.map(lambda pair: infer(server, *pair), pairs))
    for pair, alpha in zip(pairs, alphas, strict=True):
        np.testing.assert_array_equal(alpha, expected(*pair))


def test_bad_requests_at_once_do_no_harm_to_each_other(
    tiny_server: Server, infer: Infer, random_pair: RandomPair
) -> None:
    good = random_pair(6, 6)
    requests = [
        (zeros(1, 6, 6, 3), zeros(1, 5, 6, 1)),
        (zeros(1, 0, 6, 3), zeros(1, 0, 6, 1)),
        (zeros(1, 4, 1000, 3), zeros(1, 4, 1000, 1)),
        good,
    ] * 4

    def answer(request: tuple[np.ndarray, np.ndarray]) -> np.ndarray | str:
        try:
            return infer(tiny_server, *request)
        except InferenceServerException as error:
            return error.message()

    with ThreadPoolExecutor(len(requests)) as threads:
        answers = list(threads.map(answer, requests))
    for reason, got in zip(
        ["make them equal", "has no pixels", "the network failed"] * 4,
        [got for i, got in enumerate(answers) if i % 4 != 3],
        strict=True,
    ):
        assert reason in got
    for alpha in answers[3::4]:
        np.testing.assert_array_equal(alpha, expected(*good))


@pytest.mark.parametrize("said_by", ["config.pbtxt", "manifest.json"])
@pytest.mark.parametrize("flags", ["avx2 avx512f", "avx2 avx_vnni"])
def test_int8_is_served_only_where_its_sums_are_right(
    tiny_repository: Path, tmp_path: Path, flags: str, said_by: str
) -> None:
    shutil.copytree(tiny_repository, tmp_path, dirs_exist_ok=True)
    if said_by == "config.pbtxt":
        config = tmp_path / "dim" / "config.pbtxt"
        config.write_text(config.read_text().replace('"auto"', '"int8"'))
    else:
        write_manifest(tmp_path / "dim" / "1", {"precision": "int8"})
    have_processor(tmp_path / "dim" / "1" / "model.py", flags)
    if "vnni" in flags:
        with launch(tmp_path) as server:
            assert server.grpc_url
    else:
        with (
            pytest.raises(LaunchError, match="precision is 'int8', but this processor has no VNNI"),
            launch(tmp_path),
        ):
            pass


def write_manifest(version: Path, facts: dict) -> None:
    entry = {"target": "openvino", "files": {}, **facts}
    (version / "manifest.json").write_text(json.dumps({"model.onnx": entry}))


@pytest.mark.parametrize(
    ("setting", "facts", "computes_in_bf16", "hint"),
    [
        ("auto", {"bf16": {"pictures": 5}}, True, None),
        ("auto", {"bf16": {"pictures": 5}}, False, "f32"),  # or, on Arm, it would be FP16
        ("auto", {"bf16": "not equal to the network"}, True, "f32"),
        ("auto", {}, True, "f32"),
        ("int8", {"bf16": "not equal to the network"}, True, "f32"),
        ("fp32", {"bf16": {"pictures": 5}}, True, "f32"),
        ("auto", None, True, None),
        ("auto", None, False, "f32"),
    ],
)
def test_bf16_is_for_versions_that_are_equal_in_it(
    tiny_repository: Path,
    tmp_path: Path,
    setting: str,
    facts: dict | None,
    computes_in_bf16: bool,
    hint: str | None,
) -> None:
    """config.pbtxt is for all versions, the export's verdict for one."""
    shutil.copytree(tiny_repository, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "dim" / "config.pbtxt"
    config.write_text(config.read_text().replace('"auto"', f'"{setting}"'))
    version = tmp_path / "dim" / "1"
    if facts is not None:
        write_manifest(version, {"precision": "fp32", **facts})
    told = tmp_path / "told"
    write_it = f"    open({str(told)!r}, 'w').write(repr(settings))\n"
    found = "    def prepare()"
    rewrite(version / "model.py", found, write_it + found)
    rewrite(
        version / "model.py",
        "return hint == openvino.Type.bf16",
        f"return {computes_in_bf16}",
    )
    with launch(tmp_path):
        assert ast.literal_eval(told.read_text()).get("INFERENCE_PRECISION_HINT") == hint


def test_a_missing_onnxruntime_is_named(tiny_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_repository, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "dim" / "config.pbtxt"
    config.write_text(config.read_text().replace('"cpu"', '"onnxruntime"'))
    program = tmp_path / "dim" / "1" / "model.py"
    without = "import sys\nsys.modules['onnxruntime'] = None\n"
    program.write_text(without + program.read_text())
    with pytest.raises(LaunchError, match="pip install onnxruntime"), launch(tmp_path):
        pass


def test_onnxruntime_gives_the_same_alpha(
    tiny_repository: Path, tmp_path: Path, infer: Infer, random_pair: RandomPair
) -> None:
    shutil.copytree(tiny_repository, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "dim" / "config.pbtxt"
    text = config.read_text()
    assert text.count('"cpu"') == 1
    config.write_text(text.replace('"cpu"', '"onnxruntime"'))
    image, trimap = random_pair(11, 13, 2)
    with launch(tmp_path) as server:
        alpha = infer(server, image, trimap)
    np.testing.assert_array_equal(alpha, expected(image, trimap))


@pytest.mark.parametrize(
    ("setting", "flags", "computes_in_bf16", "change", "engine"),
    [
        ("auto", "avx2", False, "", "mnn"),
        ("fp32", "avx2", False, "", "mnn"),
        ("auto", "avx2", True, "", "openvino"),
        ("auto", "avx2 avx512f", False, "", "openvino"),
        ("fp32", "asimd", False, "", "openvino"),
        ("fp32", "avx2", False, "no model.mnn", "openvino"),
        ("fp32", "avx2", False, "no MNN", "openvino"),
    ],
)
def test_what_is_fastest_serves(
    tmp_path: Path, setting: str, flags: str, computes_in_bf16: bool, change: str, engine: str
) -> None:
    copy = copy_shipped(tmp_path)
    rewrite(copy / "config.pbtxt", '"auto"', f'"{setting}"')
    program = copy / "1/model.py"
    have_processor(program, flags)
    rewrite(program, "return hint == openvino.Type.bf16", f"return {computes_in_bf16}")
    # The choice is what is tested; what loads takes seconds.
    told = "raise pb_utils.TritonModelException(f'would load {name} in {precision}')"
    rewrite(program, '    if name == "mnn":', f'    {told}\n    if name == "mnn":')
    if change == "no model.mnn":
        rewrite(copy / "1/manifest.json", '"model.mnn"', '"another"')
        rewrite(
            program,
            "entry = check_files(folder)",
            "entry = json.loads((folder / 'manifest.json').read_text())['model.onnx']",
        )
    if change == "no MNN":
        rewrite(program, "import json\n", "import json, sys\nsys.modules['MNN'] = None\n")
    with pytest.raises(LaunchError, match=f"would load {engine} in {setting}"), launch(tmp_path):
        pass


def have_processor(program: Path, flags: str) -> None:
    """Let model.py read other flags of the processor."""
    processor = program.with_name("cpuinfo")
    processor.write_text(f"flags\t: fpu {flags} sse\n")
    rewrite(program, "/proc/cpuinfo", str(processor))


def copy_shipped(repository: Path) -> Path:
    """Return a copy of the default model, to be changed by `rewrite`; it is of links."""
    return Path(shutil.copytree(SHIPPED, repository / "dim", copy_function=os.symlink))


def rewrite(path: Path, old: str, new: str) -> None:
    """Put a changed file in the place of a link."""
    text = path.read_text()
    assert text.count(old) == 1
    path.unlink()
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("siblings", "allowed", "cores"),
    [
        (["0,2", "1,3", "0,2", "1,3"], {0, 1, 2, 3}, 2),
        (["0,2", "1,3", "0,2", "1,3"], {0, 2}, 1),
        (["0", "1"], {0, 1}, 2),
        ([], {3, 5, 7}, 3),  # nothing is said of them
    ],
)
@pytest.mark.parametrize("place", ["model.py", "export.runtime"])
def test_two_threads_of_one_core_count_once(
    place: str,
    siblings: list[str],
    allowed: set[int],
    cores: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the server as in an export, which compares what the server will compute."""
    if place == "model.py":
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("of Triton"))
        physical_cores = runpy.run_path(str(SHIPPED / "1/model.py"))["physical_cores"]
    else:
        from export.runtime import physical_cores
    monkeypatch.setitem(physical_cores.__globals__, "Path", lambda path: tmp_path / path[1:])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: allowed)
    for number, text in enumerate(siblings):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "core_cpus_list").write_text(f"{text}\n")
    assert physical_cores() == cores


@pytest.mark.parametrize(
    ("engine", "module", "given"),
    [
        ("openvino", "openvino", lambda it: it.compile_model.call_args.args[2]),
        ("mnn", "MNN", lambda it: it.nn.create_runtime_manager.call_args.args[0][0]),
        ("onnxruntime", "onnxruntime", lambda it: vars(it.InferenceSession.call_args.args[1])),
    ],
)
def test_engines_are_given_the_threads_of_the_configuration(
    engine: str, module: str, given: Callable[[MagicMock], dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("of Triton"))
    asked = MagicMock()
    monkeypatch.setitem(sys.modules, module, asked)
    runpy.run_path(str(SHIPPED / "1/model.py"))["load_engine"](engine, SHIPPED, 77, "fp32")
    assert 77 in given(asked).values()


RUN_OUT_OF_MEMORY = """
import resource, runpy, sys
from pathlib import Path
from types import ModuleType
import numpy as np

sys.modules["triton_python_backend_utils"] = ModuleType("of Triton")
folder = Path(sys.argv[1])
engine = runpy.run_path(folder / "model.py")["load_engine"]("openvino", folder, 1, "fp32")

def matte(height, width):
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    return engine(image, np.full((1, height, width, 1), 128, np.uint8)).copy()

alpha = matte(96, 64)
assert np.ptp(alpha) > 100
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 60 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
try:
    matte(512, 512)
except RuntimeError:
    print("ran out")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
np.testing.assert_array_equal(matte(96, 64), alpha)
"""


def test_alphas_are_right_after_openvino_ran_out_of_memory() -> None:
    """OpenVINO 2026.4 on its own gives wrong ones from then on."""
    command = [sys.executable, "-c", RUN_OUT_OF_MEMORY, SHIPPED / "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ran out\n"), done.stderr


def test_mnn_serves_the_network_and_ends_when_memory_runs_out(
    server: Server, tmp_path: Path, infer: Infer, random_pair: RandomPair
) -> None:
    copy = copy_shipped(tmp_path)
    rewrite(copy / "config.pbtxt", '"auto"', '"fp32"')
    have_processor(copy / "1/model.py", "avx2")
    found = "outputs = network.forward(inputs)"
    rewrite(copy / "1/model.py", found, f"{found} if pair[0].shape[1] != 77 else []")
    image, trimap = random_pair(50, 60, 2)
    with launch(tmp_path) as running:
        alpha = infer(running, image, trimap)
        default = infer(server, image, trimap).astype(int)  # in bf16, where there is that
        assert np.ptp(default) == 255
        assert np.abs(alpha - default).mean() / 255 < 5e-3
        with pytest.raises(InferenceServerException, match="failed: not enough memory for 8x77"):
            infer(running, *random_pair(77, 8))
        assert running.wait() == "a process that ran a model was killed, perhaps for lack of memory"
