"""Scores of weights and of methods that need none."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from matting.images import read_gray, read_image, write_image
from matting.knn import knn_alpha
from matting.metrics import evaluate
from train.baselines import blend_by_distance
from train.checkpoint import save_checkpoint
from train.dataset import Photographs, as_tensor
from train.evaluate import main, measure, table
from train.layouts import is_composition_1k_test
from train.predict import predict_alpha
from train.sheet import contact_sheet, matte_row


@pytest.fixture(scope="module")
def weights(oracle_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_checkpoint(oracle_network(1), path, {}, dtype=torch.float32)
    return path


def test_scores_table_and_sheet(weights, data, oracle_network, tmp_path, capsys):
    report = tmp_path / "report"
    assert main([str(weights), "--data", str(data), "-o", str(report)]) == 0
    with (report / "per_image.csv").open() as file:
        rows = {(row["method"], row["name"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6
    own = {}
    for name in ("one", "two", "three"):
        image = read_image(data / f"val/image/{name}.jpg")
        trimap, truth = (read_gray(data / f"val/{kind}/{name}.png") for kind in ("trimap", "alpha"))
        pixels = as_tensor(image)[None], as_tensor(trimap)[None]
        alpha = predict_alpha(oracle_network(1), *pixels)[0, 0].numpy()
        for method, predicted in (
            ("network", alpha),
            ("distance blend", blend_by_distance(image, trimap)),
        ):
            own[method, name] = evaluate(predicted, truth, trimap)
            row = {metric: float(rows[method, name][metric]) for metric in own[method, name]}
            assert row == pytest.approx(own[method, name], rel=1e-3)
    mean_sad = np.mean([own["network", name]["SAD"] for name in ("one", "two", "three")])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "network" in line)
    assert line.split()[3:6:2] == ["3", f"{mean_sad:.2f}"]
    assert read_image(report / "worst.png").shape == (28 + 3 * 256, 5 * 256, 3)
    assert {path.name for path in report.iterdir()} == {"per_image.csv", "worst.png"}


def test_the_sheet_shows_the_worst_first(data, monkeypatch):
    def sheet(rows):
        monkeypatch.setattr("train.evaluate.WORST", rows)
        return measure({"blend": blend_by_distance}, Photographs.find(data))

    results, two = sheet(2)
    assert len({result["SAD"] for result in results}) == 3
    worst = max(results, key=lambda result: result["SAD"])["name"]
    ((image, trimap, truth),) = (p for name, *p in Photographs.find(data) if name == worst)
    label = f"{worst}  SAD {max(result['SAD'] for result in results):.2f}"
    row = matte_row(image, trimap, blend_by_distance(image, trimap), truth, label)
    assert np.array_equal(sheet(1)[1], contact_sheet([row]))
    assert np.array_equal(two[: 28 + 256], contact_sheet([row]))


def test_knn_stands_beside_each_network(weights, data, oracle_network, tmp_path, capsys):
    assert main([str(weights), "--data", str(data), "--knn", "-o", str(tmp_path)]) == 0
    assert " network, --knn |" in capsys.readouterr().out
    with (tmp_path / "per_image.csv").open() as file:
        rows = {(row["method"], row["name"]): float(row["SAD"]) for row in csv.DictReader(file)}
    image = read_image(data / "val/image/one.jpg")
    trimap, truth = (read_gray(data / f"val/{kind}/one.png") for kind in ("trimap", "alpha"))
    pixels = as_tensor(image)[None], as_tensor(trimap)[None]
    alpha = predict_alpha(oracle_network(1), *pixels)[0, 0].numpy()
    refined = evaluate(knn_alpha(image, trimap, alpha), truth, trimap)
    assert rows["network, --knn", "one"] == pytest.approx(refined["SAD"], rel=1e-3)


def test_several_weights_stand_in_one_table_by_their_paths(weights, data, tmp_path, capsys):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    assert main([str(weights), str(copy), "--data", str(data)]) == 0
    first, second, blend = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in (first, second)] == [str(weights), str(copy)]
    assert first.split("|")[2:] == second.split("|")[2:] != blend.split("|")[2:]


def test_every_unknown_value_counts(weights, data, tmp_path, capsys):
    tables = []
    for value in (128, 99):
        folder = shutil.copytree(data / "val", tmp_path / str(value))
        for path in (folder / "trimap").iterdir():
            trimap = read_gray(path)
            write_image(path, np.where(trimap == 128, np.uint8(value), trimap))
        assert main([str(weights), "--data", str(folder)]) == 0
        tables.append([row.split("|")[3:] for row in capsys.readouterr().out.splitlines()])
    assert tables[0] == tables[1]


def test_mmeditings_figures_stand_beside_ours_on_composition_1k_only(tmp_path):
    scores = {"SAD": 1.0, "MSE": 0.5, "GRAD": 3.0, "CONN": 4.0}
    results = [{"method": "network", "name": "a", **scores}]
    for row in (
        "| mmediting stage 1 |     1000 | 53.80 | 0.0170 |  32.70 |  54.50 |",
        "| mmediting stage 2 |     1000 | 52.30 | 0.0160 |  29.40 |  52.40 |",
        "| mmediting stage 3 |     1000 | 50.60 | 0.0150 |  29.00 |  50.70 |",
    ):
        assert row in table(results, published=True)
    assert "mmediting" not in table(results, published=False)
    pictures = {f"{i}_{j}": "digest" for i in range(50) for j in range(20)}
    for source, named, expected in (
        ("Composition-1k", pictures, True),
        ("Composition-1k", {"0_0": "digest"}, False),
        ("my cut-outs", pictures, False),
    ):
        (tmp_path / "val").mkdir(exist_ok=True)
        manifest = {"source": source, "pictures": named}
        (tmp_path / "val/manifest.json").write_text(json.dumps(manifest))
        assert is_composition_1k_test(tmp_path) == expected
    for count in (1000, 999):
        entries = [{"merged_path": f"{number}.png"} for number in range(count)]
        (tmp_path / "test_list.json").write_text(json.dumps(entries))
        assert is_composition_1k_test(tmp_path) == (count == 1000)


def test_distance_blend_is_a_ramp_between_parallel_edges():
    trimap = np.full((20, 60), 128, np.uint8)
    trimap[:, :10], trimap[:, 50:] = 0, 255
    alpha = blend_by_distance(np.zeros((20, 60, 3), np.uint8), trimap)
    ramp = np.arange(1, 41) / 41 * 255
    assert np.abs(alpha[:, 10:50].astype(float) - ramp).max() <= 1
    assert (alpha[:, :10] == 0).all()
    assert (alpha[:, 50:] == 255).all()


@pytest.mark.parametrize("method", ["closed_form", "knn"])
def test_peers_find_a_soft_edge_between_two_colours(method):
    """The distance blend cannot: the edge is not in the middle of the unknown band."""
    pytest.importorskip("pymatting")
    from train import baselines

    truth = np.clip((np.arange(60) - 16) * 32, 0, 255).astype(np.uint8) * np.ones((20, 1), np.uint8)
    image = np.dstack([truth, 255 - truth, truth // 2])
    trimap = np.full((20, 60), 128, np.uint8)
    trimap[:, :10], trimap[:, 50:] = 0, 255
    error = evaluate(getattr(baselines, method)(image, trimap), truth, trimap)["SAD"]
    assert error < 0.5 * evaluate(blend_by_distance(image, trimap), truth, trimap)["SAD"]
    with pytest.raises(ValueError, match="foreground"):
        getattr(baselines, method)(image, np.minimum(trimap, 128))


def test_mistakes_are_one_line_and_nothing_is_written(weights, data, tmp_path, capsys):
    (tmp_path / "other/image").mkdir(parents=True)
    small = np.zeros((5, 5), np.uint8)
    for kind, size in (("image", 5), ("trimap", 5), ("alpha", 4)):
        (tmp_path / "sizes" / kind).mkdir(parents=True)
        write_image(tmp_path / "sizes" / kind / "a.png", small[:size])
    shutil.copytree(tmp_path / "sizes", tmp_path / "foreign")
    (tmp_path / "foreign/manifest.json").write_text("{}")
    for arguments, complaint in (
        (["nothing.pth", "--data", str(data)], "nothing.pth: no such file"),
        ([str(weights), "--data", str(tmp_path / "none")], "none: no such folder"),
        ([str(weights), "--data", str(tmp_path / "other")], "other: no pictures in image/"),
        ([str(weights), "--data", str(tmp_path / "sizes")], "a.png: is 5 x 4 pixels, its image 5"),
        # Before anything is measured.
        ([str(weights), "--data", str(tmp_path / "foreign")], "manifest.json: is not a manifest"),
    ):
        assert main([*arguments, "-o", str(tmp_path / "report")]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
    assert not list((tmp_path / "report").glob("*"))
    with pytest.raises(SystemExit) as caught:
        main([str(weights), "--data", str(data), "--device", "abacus"])
    assert caught.value.code == 2
    assert "--device abacus: " in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_measured(
    weights, data, monkeypatch, capsys
):
    monkeypatch.delattr("train.evaluate.measure")
    assert main([str(weights), "--data", str(data), "-o", "/proc"]) == 2
    assert "'/proc'" in capsys.readouterr().err
