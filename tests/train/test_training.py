"""Runs as users start them: cut off and resumed, in two processes, over seeds and stages.

Samples are few and small, and the network is narrow: what is tested here does not depend on its
width.
"""

import csv
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from matting.images import read_image
from train.checkpoint import load_checkpoint, read_state, save_checkpoint
from train.dataset import TrainingData, as_tensor
from train.initialise import randomise
from train.losses import matting_losses
from train.network import DeepImageMatting
from train.predict import predict_alpha
from train.stages import stage
from train.synthesis import Samples, Synthesis

TINY = ["--crop", "32", "--batch-size", "1"]
DEADLINE = 300
KILLED = """
import os, signal, sys
import train.fit
from train.__main__ import main

def write_last(path, content, write_whole=train.fit.write_whole):
    write_whole(path, content)
    if path.name == "last.ckpt":
        os.kill(os.getpid(), signal.SIGKILL)

train.fit.write_whole = write_last
main(sys.argv[1:])
"""
"""A run that is killed as soon as it could go on: a narrow one would be at its end before a signal
from here reached it."""
ROOT = Path(__file__).parents[2]


def main(arguments=None):
    """Run the command. Lightning takes long to load: only the worker with these tests does."""
    from train.__main__ import main

    return main(arguments)


def finished(folder):
    from train.fit import Run

    return Run.finished(folder)


@pytest.fixture
def start(narrow_network, tmp_path):
    """Weights to start from; from here on the network is narrow."""
    network = DeepImageMatting(refiner=False)
    randomise(network, seed=0)
    path = tmp_path / "random.safetensors"
    save_checkpoint(network, path, {}, dtype=torch.float32)
    return path


@pytest.fixture
def folder(tmp_path):
    """For runs."""
    return tmp_path / "runs"


@pytest.fixture
def command(data, start):
    """The command line of a tiny run."""
    return ["--stage", "1", "--data", str(data), "--from", str(start), *TINY]


def launch(*arguments, program=("-m", "train"), **variables):
    """Start a run of its own process, whose network is narrow, too."""
    narrow = os.pathsep.join([str(ROOT / "tests/narrow"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": narrow, **variables},
    )


def weights(folder):
    """The exact weights after the last step."""
    return read_state(folder / "last.ckpt")


def optimizer(folder):
    """Its state after the last step."""
    (state,) = torch.load(folder / "last.ckpt", weights_only=True)["optimizer_states"]
    return state


def first_moments(state):
    """All of them, of Adam's state: after its first step a tenth of the gradients."""
    return torch.cat([moments["exp_avg"].flatten() for moments in state["state"].values()])


def matte(network, image, trimap):
    """Return the alpha of arrays, H×W."""
    pixels = as_tensor(image)[None], as_tensor(trimap)[None]
    return predict_alpha(network, *pixels)[0, 0].numpy().astype(float)


def sad_in_fp32(network, photographs):
    """The mean over photographs."""
    errors = [
        np.abs(matte(network, image, trimap) - truth).sum()
        for _, image, trimap, truth in photographs
    ]
    return np.mean(errors) / 255e3


def logged(folder, version, column):
    with (folder / f"version_{version}" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def test_a_killed_run_goes_on_as_if_nothing_had_been(command, start, folder, capsys):
    """Also in another folder, where the best weights are those from before."""
    whole, cut = folder / "whole", folder / "cut"
    command += ["--steps", "4", "--validate-every", "2"]
    command += ["--seed", "1", "--learning-rate", "0.01", "-o"]
    assert main([*command, str(whole)]) == 0
    sads = logged(whole, 0, "SAD")
    assert sads[1] < sads[3]
    assert torch.load(whole / "best.ckpt", weights_only=True)["global_step"] == 2
    kept = load_checkpoint(whole / "best.safetensors").state_dict()
    for name, value in read_state(whole / "best.ckpt").items():
        torch.testing.assert_close(kept[name], value.half().float())

    process = launch(*command, str(cut), program=("-c", KILLED))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGKILL, output
    assert (cut / "last.ckpt").exists() and not (cut / "best.safetensors").exists()

    rates = [optimizer(run)["param_groups"][0]["lr"] for run in (cut, whole)]
    assert rates == pytest.approx([0.01 * 3 / 50 * 0.5, 0])  # half way, in the warm-up

    cut = cut.rename(folder / "moved")
    assert main([*command, str(cut), "--resume"]) == 0
    expected, resumed = weights(whole), weights(cut)
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-7)
    assert logged(cut, 1, "SAD") == pytest.approx({3: sads[3]}, rel=1e-3)
    assert finished(cut).sad == finished(whole).sad

    assert main([*command, str(cut), "--resume"]) == 0
    capsys.readouterr()
    assert main([*command, str(cut), "--resume", "--seed", "7", "--steps", "6"]) == 2
    assert "moved: has a finished run of seed 1, steps 4; choose" in capsys.readouterr().err
    shutil.copy(start, cut / "best.safetensors")
    assert main([*command, str(cut), "--resume"]) == 2
    assert "has no 'run' in its metadata: it is not" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_has_not_succeeded(command, folder, wait_until, number):
    command = [*command, "--steps", "100000", "--validate-every", "10", "-o", str(folder)]
    process = launch(*command)
    wait_until((folder / "last.ckpt").exists)
    process.send_signal(number)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + number
    assert f"\ntrain: stopped by {number.name}; continue with --resume\n" in output
    assert "Traceback" not in output


def test_only_the_same_run_goes_on(command, folder, tmp_path, capsys):
    """What it is not is said before any picture is read."""
    command += ["--validate-every", "1", "--steps", "2", "--precision", "32", "-o", str(folder)]
    assert main(command) == 0
    (folder / "best.safetensors").unlink()
    nowhere = [*command, "--resume", "--data", str(tmp_path / "nowhere")]

    def refused(complaint, *changes):
        assert main([*nowhere, *changes]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.splitlines()[-1].startswith("train: ")

    capsys.readouterr()
    refused(
        "runs: has an unfinished run of seed 0; resume it with its own settings, or", "--seed", "1"
    )
    refused("of learning_rate 0.0002, averaging 0.999;", "--learning-rate", "1", "--averaging", "0")
    refused("has an unfinished run of steps 2;", "--steps", "3")
    refused("has an unfinished run of precision 32;", "--precision", "bf16-mixed")
    refused("has an unfinished run of stage 1; resume", "--stage", "2")
    refused("runs: has a run of one seed in it; choose another -o", "--seeds", "2")
    refused("nowhere: no such folder")
    nowhere = [*command, "--resume"]
    refused("unfinished run of validation photographs 3; resume", "--validation-images", "2")
    refused("unfinished run of processes 1; resume", "--accelerator", "cpu", "--devices", "2")
    assert main([*command, "--resume"]) == 0
    refused("has a finished run of backgrounds 2; choose", "--backgrounds", "1")
    refused("has a finished run of processes 1; choose", "--accelerator", "cpu", "--devices", "2")
    (folder / "best.safetensors").unlink()
    nowhere = [*nowhere, "--data", str(tmp_path / "nowhere")]

    last = folder / "last.ckpt"
    content = torch.load(last, weights_only=True)
    del content["run"]["processes"]
    torch.save(content, last)
    refused("last.ckpt: has no record of its run")
    for length in (100_000, 0):
        last.write_bytes(last.read_bytes()[:length])
        refused(f"last.ckpt: damaged or cut short ({length} bytes); start in another -o")


def test_the_file_to_go_on_from_is_not_written_elsewhere(command, folder, monkeypatch):
    """Where $TMPDIR is on another file system, to move a file here takes time to be killed in."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "none"))
    assert main([*command, "--steps", "1", "-o", str(folder)]) == 0
    assert (folder / "last.ckpt").exists()


def test_the_best_so_far_is_known_where_the_folder_was_moved(tmp_path):
    from train.fit import CheckpointHere

    old = CheckpointHere(tmp_path / "old", "best", monitor="SAD")
    old.best_model_path = old.kth_best_model_path = str(tmp_path / "old/best.ckpt")
    old.best_k_models, old.best_model_score = {old.best_model_path: 0.4}, 0.4
    new = CheckpointHere(tmp_path / "new", "best", monitor="SAD")
    new.load_state_dict(old.state_dict())
    assert str(new.state_dict()) == str(old.state_dict()).replace("old", "new")


def test_weights_that_are_no_numbers_are_not_kept(command, folder, capsys):
    command += ["--steps", "2", "--validate-every", "1", "--learning-rate", "1e30"]
    assert main([*command, "-o", str(folder)]) == 2
    assert "no validation had a finite SAD; lower the learning rate" in capsys.readouterr().err
    assert not (folder / "best.safetensors").exists()


@pytest.mark.parametrize("nodes", [1, 2])
def test_two_processes_average_the_gradients_of_different_batches(
    nodes, command, data, start, folder, free_port
):
    """Of one machine, or of two that know each other by address and port only."""
    from train.module import Training

    command += ["--accelerator", "cpu", "--devices", str(2 // nodes), "--nodes", str(nodes)]
    command += ["--steps", "1", "-o", str(folder)]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} if nodes > 1 else {}
    processes = [launch(*command, **meeting, NODE_RANK=str(node)) for node in range(nodes)]
    outputs = [process.communicate(timeout=DEADLINE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * nodes, outputs
    assert "".join(outputs).count(" best SAD |") == 1  # one of the two speaks

    read, settings = TrainingData.read(data), stage(1)
    samples = Samples(read.foregrounds, read.backgrounds, Synthesis(crop=32), 1, seed=1)
    before = load_checkpoint(start)
    training = Training(load_checkpoint(start).train(), settings, read, seed=0, facts={})
    optimizers = training.configure_optimizers()
    for number in (0, 1):
        batch = samples.batch(number)
        alpha, refined = training.network(batch["image"], batch["trimap"])
        (sum(matting_losses(alpha, refined, batch, dict(settings.losses)).values()) / 2).backward()
    torch.nn.utils.clip_grad_norm_(training.network.parameters(), settings.gradient_clip)
    optimizers["optimizer"].step()

    after = weights(folder)
    for name, expected in training.network.state_dict().items():
        changed = (expected - before.state_dict()[name]).abs().mean()
        assert changed > 0
        assert (after[name] - expected).abs().mean() < 0.02 * changed
    # Adam's first step is as long for a sum of gradients as for their mean; its moment is not.
    expected = first_moments(optimizers["optimizer"].state_dict())
    assert (first_moments(optimizer(folder)) - expected).norm() < 0.02 * expected.norm()

    judged = load_checkpoint(start)
    judged.load_state_dict(after)
    assert len(read.photographs) == 3  # which two processes cannot share evenly
    sad = sad_in_fp32(judged, read.photographs)
    assert logged(folder, 0, "SAD")[0] == pytest.approx(sad, rel=1e-3)


def test_gradients_are_clipped(data, start, folder):
    from train.fit import Machine, fit, starting_network

    settings = replace(stage(1, crop=32, batch_size=1, steps=1), gradient_clip=1e-3)
    new_network = partial(starting_network, settings, 0, start, None)
    machine = Machine("cpu", devices=1, nodes=1, precision="32")
    fit(settings, new_network, TrainingData.read(data), 0, folder, machine)
    assert first_moments(optimizer(folder)).norm() == pytest.approx(1e-4, rel=1e-3)


def test_what_learns_in_bf16_is_judged_in_fp32(command, data, start, folder):
    command += ["--steps", "1", "--accelerator", "cpu", "--precision"]
    gradients = {}
    for precision in ("32", "bf16-mixed"):
        run = folder / precision
        assert main([*command, precision, "-o", str(run)]) == 0
        judged = load_checkpoint(start)
        judged.load_state_dict(weights(run))
        sad = sad_in_fp32(judged, TrainingData.read(data).photographs)
        assert logged(run, 0, "SAD")[0] == pytest.approx(sad, rel=1e-5)
        gradients[precision] = first_moments(optimizer(run))
    rounded = (gradients["bf16-mixed"] - gradients["32"]).norm() / gradients["32"].norm()
    assert 1e-4 < rounded < 0.1  # 0.008 was measured


def test_no_stage_and_no_seed_gets_the_samples_of_another(data, narrow_network):
    from pytorch_lightning import Trainer

    from train.module import Training

    read, images = TrainingData.read(data), []
    for number, seed in itertools.product((1, 2, 3), (0, 1, 2)):
        settings = stage(number, crop=32, batch_size=1)
        module = Training(DeepImageMatting(), settings, read, seed, facts={})
        module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        images.append(next(iter(module.train_dataloader()))["image"])
    assert not any(torch.equal(*pair) for pair in itertools.combinations(images, 2))


def test_the_learning_rate_warms_up_and_falls_to_zero(narrow_network):
    from train.module import Training

    training = Training(DeepImageMatting(), stage(1), {}, seed=0, facts={})
    shares = [training.learning_rate_share(step) for step in (0, 49, 50_000, 100_000)]
    assert shares == pytest.approx([0.02, 1, 0.5, 0], abs=1e-4)


def test_what_is_judged_and_kept_is_the_average_of_the_weights(command, folder):
    """The first step's weights start it; of those the second leaves (1 + 1) / (10 + 1)."""
    command += ["--validate-every", "1", "--averaging"]
    for name, steps, decay in (("first", 1, 0), ("second", 2, 0), ("average", 2, 0.999)):
        assert main([*command, str(decay), "--steps", str(steps), "-o", str(folder / name)]) == 0
    first, second, average = (weights(folder / name) for name in ("first", "second", "average"))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name, value in average.items():
        torch.testing.assert_close(value, first[name].lerp(second[name], 9 / 11))
    sads = {name: logged(folder / name, 0, "SAD")[1] for name in ("second", "average")}
    assert sads["average"] != sads["second"]

    best = min((0, 1), key=logged(folder / "average", 0, "SAD").get)
    kept = load_checkpoint(folder / "average/best.safetensors").state_dict()
    for name, value in (first, average)[best].items():
        torch.testing.assert_close(kept[name], value.half().float())


def test_a_short_run_keeps_most_of_what_it_learnt():
    """Nine tenths of a steady movement. A long run ends with the decay that was asked for."""
    from train.fit import moving_average

    update, average = moving_average(0.999), torch.tensor(1.0)
    for step in range(2, 111):
        average = update(average, torch.tensor(float(step)), torch.tensor(step - 1))
    assert average / 110 == pytest.approx(0.9, abs=0.01)
    late = update(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(100_000))
    assert late == pytest.approx(0.001, rel=1e-3)


def test_all_stages(command, folder, capsys):
    """Each goes on with the best weights of the one before; stage 2 leaves the backbone alone."""
    command[1] = "all"
    assert main([*command, "--steps", "1", "-o", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[-4:-1]] == ["1", "2", "3"]
    assert lines[-1] == str(folder / "stage3/best.safetensors")
    first, second, third = (
        load_checkpoint(folder / f"stage{number}/best.safetensors").state_dict()
        for number in (1, 2, 3)
    )
    assert not [name for name in first if name.startswith("refiner")]
    assert all(torch.equal(second[name], value) for name, value in first.items())
    changed = {name for name, value in third.items() if not torch.equal(second[name], value)}
    assert {"backbone.encoder.conv6.weight", "refiner.refine_pred.weight"} <= changed

    pictures = read_image(folder / "stage3/validation/step_0000001.png")
    assert pictures.shape == (28 + 3 * 256, 5 * 256, 3)
    assert list((folder / "stage3/version_0").glob("events.out.tfevents.*"))
    assert logged(folder / "stage3", 0, "loss_refined").keys() == {0}


def test_seeds_and_their_table(command, folder, capsys):
    command[1] = "2"
    assert main([*command, "--steps", "1", "--seeds", "2", "-o", str(folder)]) == 0
    runs = [finished(folder / f"seed{seed}") for seed in (0, 1)]
    assert runs[0].sad != runs[1].sad
    row, path = capsys.readouterr().out.splitlines()[-2:]
    figures = [float(cell) for cell in row.strip("|").split("|")]
    sads = np.array([run.sad for run in runs])
    expected = [2, 2, sads.mean(), sads.std(), sads.min(), sads.argmin()]
    assert figures == pytest.approx(expected, abs=1e-3)
    assert path == str(folder / "best.safetensors")
    assert finished(folder).seed == sads.argmin()


def test_a_start_from_another_stage_is_pointed_out(start, tmp_path, capsys):
    """Before any picture is read; stage 2 may start from any."""
    refined = tmp_path / "refined.safetensors"
    save_checkpoint(DeepImageMatting(), refined, {})
    for number, weights, note in (
        ("1", start, ""),
        ("1", refined, f"train: {refined}: stage 1 leaves its refiner out\n"),
        ("2", start, ""),
        ("3", start, f"train: {start}: has no refiner: stage 3 starts with a random one; --stage"),
        ("3", refined, ""),
    ):
        where = ["--data", str(tmp_path / "nowhere"), "-o", str(tmp_path / "new")]
        assert main(["--stage", number, "--from", str(weights), *where]) == 2
        error = capsys.readouterr().err
        assert error.startswith(note)
        assert error.count("\n") == 1 + bool(note)
        assert "nowhere: no such folder" in error


def test_mistakes_are_one_line(command, start, tmp_path, monkeypatch, capsys):
    for name in ("old/last.ckpt", "done/best.safetensors", "seeds/seed1/best.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "all/stage3").mkdir(parents=True)
    save_file(read_state(start), tmp_path / "all/stage3/best.safetensors", {"format": "pt"})
    output, nowhere = ["-o", str(tmp_path / "new")], ["--data", str(tmp_path / "nowhere")]
    monkeypatch.chdir(tmp_path)
    old = [*command, *nowhere, "-o"]
    for arguments, complaint in (
        ([*command, "--data", str(tmp_path), *output], "no pictures in train/cutouts/ and"),
        # Before any picture is read.
        ([*old, "old"], "old: has a run in it; continue with --resume, or choose another -o"),
        ([*old, "done"], "done: has a run in it"),
        ([*old, "done", "--seeds", "2"], "done: has a run in it"),
        ([*old, "seeds", "--seeds", "2"], "seeds/seed1: has a run in it"),
        ([*old, "all", "--stage", "all"], "all/stage3: has a run in it"),
        (
            [*old, "all", "--stage", "all", "--resume"],
            "is not from a run, or an older version",
        ),
        ([*old, "/proc"], "'/proc'"),  # where nobody can write
        (["--stage", "1", *nowhere, *output], "give --vgg16 FILE or --from CHECKPOINT"),
        (["--stage", "2", *nowhere, *output], "give --from CHECKPOINT"),
        (["--stage", "2", *nowhere, "--vgg16", "v.npz", *output], "give --from CHECKPOINT"),
        (["--stage", "1", *nowhere, "--from", "no.pth", *output], "no.pth: no such file"),
        (["--stage", "1", *nowhere, "--from", "old", *output], "old: is a folder; give a file in"),
        (["--stage", "1", *nowhere, "--vgg16", "no.npz", *output], "no.npz: no such file"),
        (["--stage", "1", *nowhere, "--vgg16", str(start), *output], "not VGG16 under torchvision"),
        ([*command, "--nodes", "2", *output], "MASTER_ADDR, MASTER_PORT, NODE_RANK not set"),
        ([*command, "--accelerator", "gpu", "--devices", "99", *output], "gpu"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
    for option, value, complaint in (
        ("--stage", "4", "invalid choice"),
        ("--steps", "0", "0 is not a number from 1"),
        ("--seeds", "-1", "-1 is not a number from 1"),
        ("--crop", "100", "100 is not a multiple of 32"),
        ("--learning-rate", "nan", "nan is not a number above 0"),
        ("--averaging", "1.5", "1.5 is not a number from 0, below 1"),
        ("--batch-size", "few", "few is not a number from 1"),
        ("--precision", "16-true", "invalid choice"),
        ("--accelerator", "foo", "invalid choice"),
        ("--devices", "two", "two is not a number from 1"),
        ("--devices", "0.5", "0.5 is not a number from 1"),
        ("--devices", "0", "0 is not a number from 1"),
        ("--seed", "20261129120000", "20261129120000 is not a number from 0, below 2^32"),
        ("--seed", "-1", "-1 is not a number from 0"),
        ("--vgg16", "vgg16.npz", "--vgg16: not allowed with argument --from"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([*command, *output, option, value])
        assert caught.value.code == 2
        assert complaint in capsys.readouterr().err
