"""Runs as users start them: cut off and resumed, in two processes, over seeds and stages.

The network is the real one; its samples are few and small.
"""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from matting.images import read_image
from train.__main__ import main
from train.checkpoint import load_checkpoint, save_checkpoint
from train.dataset import TrainingData
from train.fit import Run
from train.losses import matting_losses
from train.module import Training
from train.stages import stage
from train.synthesis import Samples, Synthesis

TINY = ["--crop", "32", "--batch-size", "1"]
DEADLINE = 300


@pytest.fixture(scope="module")
def start(oracle_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "random.safetensors"
    save_checkpoint(oracle_network(1), path, {}, dtype=torch.float32)
    return path


@pytest.fixture
def command(data, start):
    """The command line of a tiny run; outputs are large, so tests remove them."""
    return ["--stage", "1", "--data", str(data), "--from", str(start), *TINY]


def launch(arguments):
    process = [sys.executable, "-m", "train", *arguments]
    return subprocess.Popen(process, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def weights(folder):
    """The exact weights after the last step."""
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items()}


def logged(folder, version, column):
    with (folder / f"version_{version}" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def test_a_killed_run_goes_on_as_if_nothing_had_been(command, tmp_path):
    arguments = [*command, "--steps", "6", "--validate-every", "2", "-o"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0

    process, end = launch([*arguments, str(tmp_path / "cut")]), time.monotonic() + DEADLINE
    while not (tmp_path / "cut/validation/step_0000004.png").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut/best.safetensors").exists()

    assert main([*arguments, str(tmp_path / "cut"), "--resume"]) == 0
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-5, atol=1e-6)
    assert logged(tmp_path / "cut", 1, "SAD")[5] == pytest.approx(
        logged(tmp_path / "whole", 0, "SAD")[5], rel=1e-3
    )
    assert Run.finished(tmp_path / "cut").sad == Run.finished(tmp_path / "whole").sad


def test_two_processes_average_the_gradients_of_different_batches(command, data, start, tmp_path):
    machine = ["--accelerator", "cpu", "--devices", "2"]
    process = launch([*command, *machine, "--steps", "1", "-o", str(tmp_path / "run")])
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    assert output.count("| best SAD |") == 1  # one of the two speaks

    read, settings = TrainingData.read(data), stage(1)
    samples = Samples(read.foregrounds, read.backgrounds, Synthesis(crop=32), 1, seed=0)
    before = load_checkpoint(start)
    training = Training(load_checkpoint(start).train(), settings, read, seed=0)
    for number in (0, 1):
        batch = samples.batch(number)
        alpha, refined = training.network(batch["image"], batch["trimap"])
        (sum(matting_losses(alpha, refined, batch, dict(settings.losses)).values()) / 2).backward()
    torch.nn.utils.clip_grad_norm_(training.network.parameters(), settings.gradient_clip)
    training.configure_optimizers()["optimizer"].step()

    after = weights(tmp_path / "run")
    for name, expected in training.network.state_dict().items():
        changed = (expected - before.state_dict()[name]).abs().mean()
        assert changed > 0
        assert (after[name] - expected).abs().mean() < 0.02 * changed


def test_all_stages_over_seeds(command, data, start, tmp_path, capsys):
    """Stage 2 leaves the backbone of the best stage 1 as it is."""
    command[1] = "all"
    assert main([*command, "--steps", "1", "--seeds", "2", "-o", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = {
        number: [Run.finished(tmp_path / f"stage{number}/seed{seed}") for seed in (0, 1)]
        for number in (1, 2, 3)
    }
    for number, own in runs.items():
        (line,) = (line for line in lines if line.startswith(f"|     {number} |"))
        _, _, seeds, mean, spread, lowest, best_seed, _ = line.split("|")
        sads = [run.sad for run in own]
        assert int(seeds) == 2
        assert float(mean) == pytest.approx(sum(sads) / 2, abs=1e-3)
        assert float(spread) == pytest.approx(abs(sads[0] - sads[1]) / 2, abs=1e-3)
        assert float(lowest) == min(sads)
        assert own[int(best_seed)].sad == min(sads)
    assert lines[-1] == str(tmp_path / "stage3/best.safetensors")

    first, second, third = (
        load_checkpoint(tmp_path / f"stage{number}/best.safetensors") for number in (1, 2, 3)
    )
    assert first.refiner is None
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)
    assert not torch.equal(
        third.backbone.encoder.conv6.weight, second.backbone.encoder.conv6.weight
    )
    assert not torch.equal(third.refiner.refine_pred.bias, second.refiner.refine_pred.bias)

    folder = tmp_path / "stage3/seed1"
    assert read_image(folder / "validation/step_0000001.png").shape == (28 + 3 * 256, 5 * 256, 3)
    assert list((folder / "version_0").glob("events.out.tfevents.*"))
    assert logged(folder, 0, "loss_refined").keys() == {0}


def test_mistakes_are_one_line(command, data, tmp_path, capsys):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/last.ckpt").touch()
    output = ["-o", str(tmp_path / "new")]
    for arguments, complaint in (
        ([*command, "-o", str(tmp_path / "old")], "has a run in it; go on with --resume"),
        (["--stage", "1", "--data", str(tmp_path), *output], "no pictures in image/"),
        (["--stage", "1", "--data", str(data), *output], "give --vgg16 FILE or --from CHECKPOINT"),
        (["--stage", "2", "--data", str(data), *output], "give --from CHECKPOINT"),
        (["--stage", "1", "--data", str(data), "--from", "no.pth", *output], "no such file"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        main(["--stage", "4", "--data", str(data), *output])
    assert caught.value.code == 2
