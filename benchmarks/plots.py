"""Plots of results, as SVG text to be put into an HTML page."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import nnls

from benchmarks.ceiling import BYTES
from benchmarks.layers import ENGINE, INFER, NETWORK
from benchmarks.load import END_TO_END
from benchmarks.measure import median
from benchmarks.scaling import rates
from benchmarks.tiles import FITTED, HALF, TILED, WHOLE, law, pace

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
    shares, (left, right) = new_figure(2, ["what a request is made of", "roofline"])
    bottom = np.zeros(len(sizes))
    for part, values in request_parts(record).items():
        left.bar(list(sizes), values, bottom=bottom, label=part)
        bottom += values
    left.set_ylabel("share of the time")
    left.legend()
    draw_roofline(right, record)
    return [distributions, shares]


def draw_roofline(axis: Axes, record: dict) -> None:
    """Draw what a request does beside what the machine's products and memory allow."""
    products, memory = record["matrix_rate"], record["memory_rate"]
    for name, measured in record["sizes"].items():
        work = measured["flops"]
        intensity = work / (measured["moved_values"] * BYTES[record["precision"]])
        rate = work / (median(measured["layers_ms"][END_TO_END]) / 1000)
        axis.loglog(intensity, rate / 1e9, "o", label=name)
    intensities = np.geomspace(0.1, 1000)
    roof = np.minimum(products, intensities * memory)
    axis.loglog(intensities, roof / 1e9, "k--", label="best matrix product, memory")
    axis.set_xlabel("FLOP for each byte that the layers move")
    axis.set_ylabel("GFLOP/s")
    axis.legend()


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
    figure, (left, middle, right) = new_figure(3, ["concurrency", "batch", "image size"])
    shape = points[0]["height"], points[0]["width"]
    same_size = [point for point in points if (point["height"], point["width"]) == shape]
    draw_rates(left, "concurrency", [point for point in same_size if point["batch"] == 1])
    draw_rates(middle, "batch", [point for point in same_size if point["concurrency"] == 1])
    draw_times(right, [point for point in points if point["concurrency"] == point["batch"] == 1])
    return [figure]


def draw_rates(axis: Axes, name: str, points: list[dict]) -> None:
    """Draw images a second of points of one size against "concurrency" or "batch"."""
    x = [point[name] for point in points]
    measured = [point["images_per_second"] for point in points]
    axis.plot(x, measured, "o-", label="this client")
    if "perf_analyzer" in points[0]:
        axis.plot(x, [point["perf_analyzer"] for point in points], "x--", label="perf_analyzer")
        axis.legend()
    axis.set_xlabel("{}, images of {height}x{width}".format(name, **points[0]))
    axis.set_ylabel("images/s")
    axis.set_ylim(0, 1.2 * max(measured))


def draw_times(axis: Axes, points: list[dict]) -> None:
    """Draw the time of a request with one picture against its size, and the straight line."""
    megapixels = [point["height"] * point["width"] / 1e6 for point in points]
    seconds = [median(point["samples_ms"]) / 1000 for point in points]
    axis.plot(megapixels, seconds, "o")
    if len(points) > 1:
        terms = np.stack([np.ones(len(points)), megapixels], axis=1)
        (start, slope), _ = nnls(terms, seconds)  # neither part of a time is negative
        ends = np.array([0, max(megapixels)])
        line = f"{start:.2f} s + {slope:.2f} s per megapixel"
        axis.plot(ends, start + slope * ends, "--", label=line)
        axis.legend()
    axis.set_xlabel("megapixels")
    axis.set_ylabel("s")


def tiles_figures(record: dict) -> list[Figure]:
    """Time for a megapixel against the unknown share, each way, and the laws."""
    figure, (axis,) = new_figure(1, ["cost of what is unknown"])
    cases = record["pictures"]
    unknown = np.array([case["unknown"] for case in cases])
    for way in (WHOLE, TILED, HALF):
        if all(way in case["SAD"] for case in cases):
            paces = [pace(case, way) for case in cases]
            (dots,) = axis.plot(unknown, paces, "o", label=way)
            if way != WHOLE and len(cases) >= FITTED:
                start, slope, _ = law(cases, way)
                ends = np.array([0, unknown.max()])
                axis.plot(ends, start + slope * ends, "--", color=dots.get_color())
    axis.set_xlabel("unknown share of the picture")
    axis.set_ylabel("s for a megapixel")
    axis.set_ylim(bottom=0)
    axis.legend()
    return [figure]


def scaling_figures(record: dict) -> list[Figure]:
    """Images a second against servers, beside as many times one server's."""
    figure, (axis,) = new_figure(1, ["servers, one core each"])
    found = {count: median(values) for count, values in rates(record).items()}
    axis.plot(list(found), list(found.values()), "o-", label="measured")
    axis.plot(list(found), [count * found[1] for count in found], "--", label="times one")
    axis.set_xlabel("servers")
    axis.set_ylabel("images/s")
    axis.set_ylim(bottom=0)
    axis.legend()
    return [figure]


def gpu_figures(record: dict) -> list[Figure]:
    """Rate of every way at every shape, below the card's best matrix product."""
    figure, (axis,) = new_figure(1, ["share of the ceiling"])
    for name, by_shape in [(name, ms) for name, ms in record["ms"].items() if ms]:
        rate = [record["flops"][shape] / median(ms) / 1e9 for shape, ms in by_shape.items()]
        axis.plot(list(by_shape), rate, "o-", label=name)
    axis.axhline(record["matrix_rate"] / 1e12, color="black", linestyle="--")
    axis.set_ylabel("TFLOP/s; dashed: best matrix product in FP16")
    axis.tick_params("x", rotation=45)
    axis.legend()
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
    "gpu": gpu_figures,
    "throughput": throughput_figures,
    "tiles": tiles_figures,
    "scaling": scaling_figures,
    "connectivity": connectivity_figures,
}
