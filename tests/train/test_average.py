"""The mean of checkpoints, and what is no mean."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from train.average import main
from train.checkpoint import load_checkpoint, read_safetensors, save_checkpoint


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, oracle_network):
    """Two checkpoints of stage 3; in the second every weight is half of the first's."""
    network = oracle_network(3)
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = [folder / "before.safetensors", folder / "after.safetensors"]
    save_checkpoint(network, paths[0], {"stage": 2, "validation SAD": 9.5})
    network.load_state_dict({name: value / 2 for name, value in network.state_dict().items()})
    save_checkpoint(network, paths[1], {"stage": 3, "seed": 11, "validation SAD": 8.5})
    return paths


def test_mean_of_two_with_the_facts_of_the_last(tmp_path, checkpoints, capsys):
    output = tmp_path / "mean.safetensors"
    assert main([*map(str, checkpoints), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    first, mean = (load_checkpoint(path).state_dict() for path in (checkpoints[0], output))
    for name, value in mean.items():
        torch.testing.assert_close(value, first[name] * 0.75, rtol=1e-3, atol=1e-6)
    facts = {name: json.loads(value) for name, value in read_safetensors(output)[1].items()}
    assert (facts["stage"], facts["seed"]) == (3, 11)
    assert "validation SAD" not in facts
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoints]
    assert facts["mean of SHA-256"] == hashes


def test_mmeditings_file_has_no_facts(tmp_path, oracle_network, checkpoints):
    published = tmp_path / "published.pth"
    torch.save(oracle_network(3).state_dict(), published)
    output = tmp_path / "mean.safetensors"
    assert main([str(checkpoints[0]), str(published), "-o", str(output)]) == 0
    assert read_safetensors(output)[1]["stage"] == '"2 or 3"'


def test_facts_that_are_not_json_are_left_out(tmp_path, checkpoints):
    """Hugging Face's files have such."""
    other, output = tmp_path / "other.safetensors", tmp_path / "mean.safetensors"
    metadata = {"format": "pt", "seed": "5"}
    save_file(load_checkpoint(checkpoints[0]).state_dict(), other, metadata)
    assert main([str(checkpoints[0]), str(other), "-o", str(output)]) == 0
    facts = read_safetensors(output)[1]
    assert facts["seed"] == "5"
    assert "format" not in facts


def test_a_name_of_another_format_is_refused(tmp_path, capsys):
    """Before work: the checkpoints, which are not there, are not missed."""
    output = tmp_path / "mean.pth"
    assert main([str(tmp_path / "none.safetensors"), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == f"train.average: {output}: is written as safetensors; use the suffix .safetensors\n"
    )


def test_other_networks_are_refused(tmp_path, oracle_network, checkpoints, capsys):
    stage1, output = tmp_path / "stage1.safetensors", tmp_path / "mean.safetensors"
    save_checkpoint(oracle_network(1), stage1, {})
    for weights, complaint in (
        ([checkpoints[0], stage1], "missing: refiner."),
        ([checkpoints[0], tmp_path / "none.safetensors"], "no such file"),
    ):
        assert main([*map(str, weights), "-o", str(output)]) == 2
        assert complaint in capsys.readouterr().err
        assert not output.exists()


def test_a_folder_that_is_not_there_is_named(tmp_path, checkpoints, capsys):
    assert main([*map(str, checkpoints), "-o", str(tmp_path / "none" / "mean.safetensors")]) == 2
    assert "none" in capsys.readouterr().err
