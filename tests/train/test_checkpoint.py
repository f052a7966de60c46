"""Every form in which weights come, and every way in which a file can be wrong."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from train.checkpoint import (
    CheckpointError,
    load_checkpoint,
    read_facts,
    read_safetensors,
    save_checkpoint,
)

META = {
    "mmedit_version": "0.16.1",
    "epoch": 186,
    "iter": 39999,
    "time": "Tue Jun  9 11:18:51 2020",
    "config": "model = dict(type='DIM')",
    "seed": None,
}


@pytest.fixture(scope="module")
def state(oracle_network):
    return oracle_network(1).state_dict()


def assert_loads(path, state):
    loaded = load_checkpoint(path)
    assert not loaded.training
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_every_form_of_pth(tmp_path, state, zip_format, prefix, wrapped):
    content = OrderedDict((prefix + name, value) for name, value in state.items())
    if wrapped:
        optimizer = {"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": []}
        content = {"meta": META, "state_dict": content, "optimizer": optimizer}
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    assert_loads(path, state)


def test_the_stage_is_known_by_the_refiner(tmp_path, oracle_network, state):
    torch.save(oracle_network(3).state_dict(), tmp_path / "3.pth")
    torch.save(state, tmp_path / "1.pth")
    assert load_checkpoint(tmp_path / "3.pth").refiner is not None
    assert load_checkpoint(tmp_path / "1.pth").refiner is None


def test_safetensors_keep_weights_and_facts(tmp_path, oracle_network, state):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(oracle_network(1), path, {"data": "drawn shapes", "scores": {"SAD": 1.5}})
    assert_loads(path, {name: value.half().float() for name, value in state.items()})
    facts = read_safetensors(path)[1]
    assert facts["stage"] == "1"
    assert facts["scores"] == '{"SAD": 1.5}'
    assert "ImageNet" in facts["normalisation"]
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_facts_are_read_and_other_metadata_is_not(tmp_path, state):
    metadata = {"format": "pt", "seed": "3", "scores": '{"SAD": 1.5}'}
    save_file(state, tmp_path / "weights.safetensors", metadata)
    assert read_facts(tmp_path / "weights.safetensors") == {"seed": 3, "scores": {"SAD": 1.5}}


def test_exact_weights_on_request(tmp_path, oracle_network, state):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(oracle_network(1), path, {}, dtype=torch.float32)
    assert_loads(path, state)


@pytest.mark.parametrize("wrapper", ["network.", "model.generator."])
def test_what_all_names_have_in_front_does_not_count(tmp_path, state, wrapper):
    torch.save({wrapper + name: value for name, value in state.items()}, tmp_path / "in.ckpt")
    assert_loads(tmp_path / "in.ckpt", state)


def test_two_networks_in_one_file_are_not_mixed(tmp_path, state):
    both = {w + name: value for w in ("", "ema.") for name, value in state.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match=r"42 extra: (ema\.\S+, ){4}\.\.\.$"):
        load_checkpoint(tmp_path / "both.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"1 extra: other$"):
        load_checkpoint(tmp_path / "other.pth")
    one_more = {"module." + name: value for name, value in (state | {"a": torch.zeros(1)}).items()}
    torch.save(one_more, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"names it: 1 extra: a$"):
        load_checkpoint(tmp_path / "more.pth")


def test_what_differs_is_listed(tmp_path, state):
    wrong = dict(state)
    for name in ("backbone.encoder.conv6.bias", "backbone.decoder.deconv1.weight"):
        del wrong[name]
    wrong["backbone.encoder.layer1.0.weight"] = torch.zeros(64, 3, 3, 3)
    wrong["fc.weight"] = torch.zeros(2)
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "wrong.pth")
    message = str(caught.value)
    assert "2 missing: backbone.encoder.conv6.bias, backbone.decoder.deconv1.weight" in message
    assert "1 extra: fc.weight" in message
    assert "1 misshapen: backbone.encoder.layer1.0.weight (64, 3, 3, 3), expected (64, 4" in message
    assert "\n" not in message


def test_weights_that_are_no_numbers_are_refused(tmp_path, state):
    state = dict(state)
    for name, number in zip(list(state)[-2:], (torch.nan, torch.inf), strict=True):
        state[name] = torch.full_like(state[name], number)
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 2 of 42 tensors \(backbone\."):
        load_checkpoint(tmp_path / "nan.pth")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zip_format", [True, False])
def test_code_in_a_checkpoint_does_not_run(tmp_path, zip_format):
    path, trap = tmp_path / "evil.pth", tmp_path / "trap"
    content = {"state_dict": {"a": torch.zeros(1)}, "meta": Malicious(trap)}
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(CheckpointError, match=r"holds \w+\.mkdir, .* could run code"):
        load_checkpoint(path)
    assert not trap.exists()


def test_code_in_an_npz_does_not_run(tmp_path):
    np.savez(tmp_path / "evil.npz", a=np.array(Malicious(tmp_path / "trap"), dtype=object))
    with pytest.raises(CheckpointError, match=r"evil\.npz: not a checkpoint"):
        load_checkpoint(tmp_path / "evil.npz")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"<html>404</html>",
        b"hello world" * 20,
        pickle.dumps([1], protocol=2),
        "legacy",
        "zip",
    ],
    ids=["empty", "byte", "html", "text", "pickle", "cut legacy", "cut zip"],
)
def test_damaged_files_are_one_line(tmp_path, content):
    path = tmp_path / "damaged.pth"
    if isinstance(content, str):
        torch.save({"a": torch.ones(99)}, path, _use_new_zipfile_serialization=content == "zip")
        content = path.read_bytes()[:-50]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^[^\n]*damaged\.pth: [^\n]*$"):
        load_checkpoint(path)


def test_other_content_and_other_files_are_one_line(tmp_path):
    torch.save({0: torch.ones(1)}, tmp_path / "numbers.pth")
    with pytest.raises(CheckpointError, match="expected named tensors"):
        load_checkpoint(tmp_path / "numbers.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="expected named tensors"):
        load_checkpoint(tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "nothing.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "bad.safetensors")
