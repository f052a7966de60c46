"""Plots of results, as SVG text to be put into an HTML page."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.layers import ENGINE, INFER, NETWORK
from benchmarks.load import END_TO_END
from benchmarks.measure import median

matplotlib.rcParams["svg.fonttype"] = "none"  # letters stay text: small, and can be searched


def plot(record: dict) -> list[str]:
    """Return the plots of a benchmark's result; none for those that are told by a table."""
    return [to_svg(figure) for figure in FIGURES.get(record["benchmark"], lambda _: [])(record)]


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG element."""
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight")
    text = file.getvalue()
    return text[text.index("<svg") :]


def new_figure(count: int, titles: list[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many plots side by side."""
    figure = Figure(figsize=(4.5 * count, 3.5), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, count)))
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
    return figure, axes


def latency_figures(record: dict) -> list[Figure]:
    """Distributions of the peers' times, what a request is made of, and the machine's ceiling."""
    sizes = record["sizes"]
    distributions, axes = new_figure(len(sizes), list(sizes))
    for axis, measured in zip(axes, sizes.values(), strict=True):
        peers = measured["peers_ms"]
        axis.boxplot(list(peers.values())[::-1], orientation="horizontal", whis=(5, 95))
        axis.set_yticks(range(1, len(peers) + 1), list(peers)[::-1])
        axis.set_xlabel("ms; box: quartiles, whiskers: p5 and p95")
        axis.set_xlim(left=0)
        if axis is not axes[0]:
            axis.set_yticklabels([])
    shares, (left, right) = new_figure(2, ["what a request is made of", "share of the ceiling"])
    bottom = np.zeros(len(sizes))
    for part, values in request_parts(record).items():
        left.bar(list(sizes), values, bottom=bottom, label=part)
        bottom += values
    left.set_ylabel("share of the time")
    left.legend()
    rates = [
        measured["flops"] / median(measured["layers_ms"][END_TO_END]) / 1e6
        for measured in sizes.values()
    ]
    right.bar(list(sizes), rates)
    right.axhline(record["matrix_rate"] / 1e9, color="black", linestyle="--")
    right.set_ylabel("GFLOP/s; dashed: best matrix product")
    return [distributions, shares]


def request_parts(record: dict) -> dict[str, list[float]]:
    """Return, for every size, the shares of a request's time that sum to one."""
    parts: dict[str, list[float]] = {"network": [], "padding, mask": [], "server, connection": []}
    for measured in record["sizes"].values():
        layers = {name: median(samples) for name, samples in measured["layers_ms"].items()}
        engine = layers[INFER] / layers[END_TO_END]
        network = engine * min(1, layers.get(NETWORK, layers[ENGINE]) / layers[ENGINE])
        for part, share in zip(parts, (network, engine - network, 1 - engine), strict=True):
            parts[part].append(share)
    return parts


def throughput_figures(record: dict) -> list[Figure]:
    """Images a second against concurrency and batch, and time against image size."""
    points = record["points"]
    first = points[0]
    titles = ["concurrency", "batch", "image size"]
    figure, axes = new_figure(3, titles)
    same_size = [
        p for p in points if (p["height"], p["width"]) == (first["height"], first["width"])
    ]
    for axis, name, other in ((axes[0], "concurrency", "batch"), (axes[1], "batch", "concurrency")):
        chosen = [point for point in same_size if point[other] == 1]
        x = [point[name] for point in chosen]
        rates = [point["images_per_second"] for point in chosen]
        axis.plot(x, rates, "o-", label="this client")
        if "perf_analyzer" in first:
            axis.plot(x, [point["perf_analyzer"] for point in chosen], "x--", label="perf_analyzer")
            axis.legend()
        axis.set_xlabel(f"{name}, images of {first['height']}x{first['width']}")
        axis.set_ylabel("images/s")
        axis.set_ylim(0, 1.2 * max(rates))
    alone = [point for point in points if point["concurrency"] == point["batch"] == 1]
    megapixels = [point["height"] * point["width"] / 1e6 for point in alone]
    seconds = [median(point["samples_ms"]) / 1000 for point in alone]
    axes[2].plot(megapixels, seconds, "o")
    if len(alone) > 1:
        slope, intercept = np.polyfit(megapixels, seconds, 1)
        ends = np.array([0, max(megapixels)])
        law = f"{intercept:.2f} s + {slope:.2f} s per megapixel"
        axes[2].plot(ends, intercept + slope * ends, "--", label=law)
        axes[2].legend()
    axes[2].set_xlabel("megapixels")
    axes[2].set_ylabel("s")
    return [figure]


def connectivity_figures(record: dict) -> list[Figure]:
    """Both computations against the size of the matte."""
    figure, (axis,) = new_figure(1, ["connectivity error"])
    cases = {case["size"]: case["samples_ms"] for case in record["cases"]}
    for name in ("reference", "matting"):
        axis.plot(
            list(cases), [median(samples[name]) for samples in cases.values()], "o-", label=name
        )
    axis.set_yscale("log")
    axis.set_ylabel("ms")
    axis.legend()
    return [figure]


FIGURES = {
    "latency": latency_figures,
    "throughput": throughput_figures,
    "connectivity": connectivity_figures,
}
