"""How an export gets into a repository, and the configurations that it writes there."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path
from tempfile import TemporaryFile
from unittest.mock import Mock

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.engine import Profile
from export.errors import ExportError
from export.export import Exported
from export.manifest import WEIGHTS, check, write_entry
from export.repository import (
    CONFIG,
    TEMPLATE,
    check_place,
    copy_all,
    put_in_place,
    read_config,
    with_parameters,
    with_profile,
)
from matting.files import sha256

ROOT = Path(__file__).parents[2]
OWN = read_config(TEMPLATE, CONFIG)
HOLD_LOCK = """
import sys, time
from pathlib import Path
from matting.files import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("space", [" ", "\n    "])
def test_engine_and_precision_are_set_and_nothing_else(tmp_path: Path, space: str) -> None:
    written = OWN.replace(" value { ", f"{space}value {{{space}")
    expected = written.replace('"cpu"', '"onnxruntime"').replace('"auto"', '"fp32"')
    assert with_parameters(written, engine="onnxruntime", precision="fp32") == expected != written


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            OWN.replace('key: "engine"', 'key: "motor"'),
            "'engine' 0 times",
        ),
        (OWN * 2, "'engine' 2 times"),
        ('parameters { key: "engine" value { string_value: "x" } }', "'precision' 0 times"),
    ],
)
def test_a_config_that_cannot_be_set_is_refused(config: str, complaint: str) -> None:
    with pytest.raises(ExportError, match=complaint):
        with_parameters(config, engine="onnxruntime", precision="fp32")


def test_a_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_bytes(b'name: "caf\xe9"')
    with pytest.raises(ExportError, match="is not text in UTF-8"):
        read_config(tmp_path, CONFIG)


def test_tensorrts_config_fits_the_profile() -> None:
    written = read_config(TEMPLATE, "configs/tensorrt.pbtxt")
    profile = Profile((1, 32, 32), (2, 96, 160), (4, 256, 320))
    config = text_format.Parse(with_profile(written, profile), ModelConfig())
    assert config.max_batch_size == 4
    (warmup,) = config.model_warmup
    assert (warmup.name, warmup.batch_size) == ("96x160", 1)
    assert list(warmup.inputs["image"].dims) == [96, 160, 3]
    assert list(warmup.inputs["trimap"].dims) == [96, 160, 1]
    again = with_profile(with_profile(written, profile), Profile())
    assert with_profile(written, Profile()) == again
    assert text_format.Parse(again, ModelConfig()).max_batch_size == 8
    expected = text_format.Parse(written, ModelConfig())
    for unlike in (config, expected):
        unlike.max_batch_size = 0
        del unlike.model_warmup[:]
    assert config == expected


@pytest.mark.parametrize(
    ("smallest", "config", "complaint"),
    [
        ((2, 1, 1), "", "smallest input is 2x1x1: its N has to be 1"),
        ((1, 1, 1), "", "sets max_batch_size 0 times, expected 1"),
        ((1, 1, 1), 'max_batch_size: 8\nname: "1x1"\n', "sets the warm-up's size 0 times"),
    ],
)
def test_tensorrts_config_that_cannot_fit_is_refused(
    smallest: tuple[int, int, int], config: str, complaint: str
) -> None:
    with pytest.raises(ExportError, match=complaint):
        with_profile(config, Profile(smallest, (2, 64, 64), (2, 64, 64)))


def test_an_export_is_made_of_the_template_alone(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may serve versions of its own, and have been started; and a folder may lack parts."""
    template = tmp_path / "template/dim"
    shutil.copytree(TEMPLATE, template)
    (template / "2").mkdir()
    (template / "1/__pycache__").mkdir(exist_ok=True)
    monkeypatch.setattr("export.repository.TEMPLATE", template)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "config.pbtxt").write_text("own")
    (old / "1").mkdir()
    (old / "1/model.py").write_text("of an older export")
    for model in (old, new):
        build = tmp_path / f"build of {model.name}"
        build.mkdir()
        shutil.copy(exported.artifact, build)
        put_in_place(build, model, "model.onnx", {"files": {"model.onnx": ""}}, {})
        assert sorted(str(path.relative_to(model)) for path in model.rglob("*")) == [
            "1",
            "1/manifest.json",
            "1/model.onnx",
            "1/model.py",
            "config.pbtxt",
            "configs",
            "configs/onnxruntime.pbtxt",
            "configs/openvino.pbtxt",
            "configs/tensorrt.pbtxt",
        ]
        assert (model / "1/model.py").read_bytes() == (TEMPLATE / "1/model.py").read_bytes()
    assert read_config(old, CONFIG) == "own" != read_config(new, CONFIG)


@pytest.mark.parametrize("there", [False, True])
def test_a_repository_may_be_a_file_system_of_its_own(there: bool, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if Path(elsewhere).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm is no file system of its own here")
        (tmp_path / "models").symlink_to(elsewhere)
        (tmp_path / "model.onnx").write_text("graph")
        model = tmp_path / "models/dim"
        if there:
            (model / "1").mkdir(parents=True)
            (model / "1/model.onnx").write_text("graph of before")
        check_place(model)
        put_in_place(tmp_path, model, "model.onnx", {"files": {"model.onnx": ""}}, {})
        assert (model / "1/model.onnx").read_text() == "graph"
        assert [path.name for path in Path(elsewhere).iterdir()] == ["dim"]
        assert not list(model.rglob("*.partial"))


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    """Triton would take it for a model, and not start."""
    (tmp_path / "model.onnx").write_text("graph")
    models = tmp_path / "models"
    (models / ".0123456789abcdef.partial/dim/1").mkdir(parents=True)
    put_in_place(tmp_path, models / "dim", "model.onnx", {"files": {"model.onnx": ""}}, {})
    assert [path.name for path in models.iterdir()] == ["dim"]


@pytest.mark.parametrize("there", [False, True])
def test_an_export_waits_for_another_even_if_that_is_killed(there: bool, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("graph")
    models = tmp_path / "models"
    (models / "dim/1" if there else models).mkdir(parents=True)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, models], cwd=ROOT, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    with ThreadPoolExecutor() as pool:
        entry = {"files": {"model.onnx": ""}}
        mine = pool.submit(put_in_place, tmp_path, models / "dim", "model.onnx", entry, {})
        with pytest.raises(TimeoutError):
            mine.result(0.5)
        assert not (models / "dim/1/model.onnx").exists()
        other.kill()
        mine.result(30)
    other.communicate()
    assert (models / "dim/1/model.onnx").read_text() == "graph"
    assert [path.name for path in models.iterdir()] == ["dim"]


def test_nothing_is_replaced_where_not_all_can_be_copied(tmp_path: Path) -> None:
    version = tmp_path / "dim/1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_text("graph of before")
    (tmp_path / "model.onnx").write_text("graph")
    names = ("model.onnx", WEIGHTS)  # which is not there to be copied
    with pytest.raises(FileNotFoundError):
        copy_all({tmp_path / name: version / name for name in names})
    assert [path.name for path in version.iterdir()] == ["model.onnx"]
    assert (version / "model.onnx").read_text() == "graph of before"


def test_what_a_killed_export_has_replaced_is_not_what_the_manifest_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that model.py and `check` refuse the mixture."""
    version = tmp_path / "dim/1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_text("graph of before")
    (tmp_path / "model.onnx").write_text("graph")
    before, after = (
        {"target": "cpu", "precision": "fp32", "files": {"model.onnx": sha256(of / "model.onnx")}}
        for of in (version, tmp_path)
    )
    write_entry(version, "model.onnx", before)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("export.repository.write_entry", Mock(side_effect=KeyboardInterrupt))
        put_in_place(tmp_path, tmp_path / "dim", "model.onnx", after, {})
    (fault,) = check(version)
    assert fault.startswith("model.onnx is not the file that was exported")
    put_in_place(tmp_path, tmp_path / "dim", "model.onnx", after, {})
    assert check(version) == []


@pytest.mark.parametrize("part", ["models", "models/dim", "models/dim/1"])
def test_a_place_that_cannot_be_written_to_is_refused_before_work(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, there = tmp_path / "models/dim", tmp_path / part
    there.mkdir(parents=True)

    def make_file(dir: Path) -> object:  # root may do anything
        if dir == there:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return TemporaryFile(dir=dir)

    monkeypatch.setattr("matting.files.TemporaryFile", make_file)
    with pytest.raises(PermissionError, match=part):
        check_place(model)
    monkeypatch.undo()
    check_place(model)
    there.rmdir()
    there.touch()
    with pytest.raises(NotADirectoryError, match=part):
        check_place(model)
