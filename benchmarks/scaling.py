"""How images a second grow with the number of servers, and what the death of one costs.

Each server has one core and one thread, so a machine stands in for several. The client sends to all
of them and shares the cores, so the last server gets less than a whole one.
"""

import argparse
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tqdm import tqdm

from benchmarks.measure import Samples, median
from benchmarks.service import add_repository_argument, answered, picture_of, size
from benchmarks.tables import Section
from client.arguments import positive
from client.connection import Matte
from export.repository import CONFIG, MODEL, with_parameters
from server.launcher import Server, launch

EXAMPLES = """examples:
  python -m benchmarks scaling
  python -m benchmarks scaling --servers 4 --size 512x512 --images 200
"""
QUICK = "64x64 pictures, eight a run, one round"
UNDER_WAY = 4
"""Requests under way for each server."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_repository_argument(parser)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--servers", type=positive(int), default=cores, help="at most, one per core (%(default)s)"
    )
    parser.add_argument(
        "--size", type=size, default=(256, 256), metavar="HxW", help="picture size (256x256)"
    )
    parser.add_argument(
        "--images", type=positive(int), default=60, help="per server and run (%(default)s)"
    )
    parser.add_argument("--rounds", type=positive(int), default=3, help="how many (%(default)s)")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: runs with 1, 2, ... servers in turns, then one in which a server dies."""
    shape = (64, 64) if options.quick else options.size
    images, rounds = (8, 1) if options.quick else (options.images, options.rounds)
    picture = picture_of(*shape)
    runs = []
    with pinned_servers(options.repository, options.servers) as servers:
        for _ in tqdm(range(rounds), unit="round", disable=None):
            for count in range(1, len(servers) + 1):
                runs.append(send(servers[:count], picture, count * images))
        death = (
            send(servers, picture, len(servers) * images, kill=servers[0]) if servers[1:] else None
        )
    every = [*runs, death] if death else runs
    lost = any(run["answered"] < run["sent"] for run in every)
    return {"size": shape, "runs": runs, "death": death, "failed": lost}


@contextmanager
def pinned_servers(repository: Path, count: int) -> Iterator[list[Server]]:
    """Run so many servers, each on a core of its own with one thread."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "repository"
        shutil.copytree(repository, folder)
        config = folder / MODEL / CONFIG
        config.write_text(with_parameters(config.read_text(), threads="1"))
        stack.callback(os.sched_setaffinity, 0, cores)
        servers = []
        for core in cores[:count]:
            os.sched_setaffinity(0, {core})  # the server inherits it
            servers.append(stack.enter_context(launch(folder)))
        os.sched_setaffinity(0, cores)
        yield servers


def send(
    servers: list[Server], picture: tuple, images: int, kill: Server | None = None
) -> dict[str, object]:
    """Send a picture so many times over one connection to all servers; kill one half way."""
    before = [answered(server) for server in servers]
    with (
        Matte([server.grpc_url for server in servers]) as matte,
        ThreadPoolExecutor(UNDER_WAY * len(servers)) as pool,
    ):
        start = time.perf_counter()
        sent = [pool.submit(matte.alpha, *picture, tile="off") for _ in range(images)]
        for number, _ in enumerate(as_completed(sent), start=1):
            if kill and number == images // 2:
                os.killpg(kill.process.pid, signal.SIGKILL)
        seconds = time.perf_counter() - start
        done = sum(answer.exception() is None for answer in sent)
    alive = [
        (server, count) for server, count in zip(servers, before, strict=True) if server != kill
    ]
    return {
        "servers": len(servers),
        "sent": images,
        "answered": done,
        "seconds": round(seconds, 3),
        "answered by each": [answered(server) - count for server, count in alive],
    }


def rates(record: dict) -> dict[int, list[float]]:
    """Return the images a second of every run, by number of servers."""
    found: dict[int, list[float]] = {}
    for run in record["runs"]:
        found.setdefault(run["servers"], []).append(run["answered"] / run["seconds"])
    return found


def render(record: dict) -> list[Section]:
    """Return a record's table, and what the death cost."""
    found = rates(record)
    rows = [
        {
            "servers": str(count),
            "images/s": f"{median(values):.2f}",
            "times one": f"{median(values) / median(found[1]):.2f}",
            "answered by each": ", ".join(
                "/".join(map(str, run["answered by each"]))
                for run in record["runs"]
                if run["servers"] == count
            ),
        }
        for count, values in found.items()
    ]
    most, rate = max(found), median(found[max(found)])
    pixels = math.prod(record["size"])
    text = (
        f"On {most} cores that is {rate * pixels / 1e6:.2f} megapixels a second, "
        f"and {1e6 / rate / 3600:.0f} hours for a million images."
    )
    death = record["death"]
    if death is None:
        return [rows, text]
    survived = f"One of {death['servers']} servers killed half way: {death['sent']} images sent, "
    return [rows, text, survived + f"{death['answered']} answered."]


def samples(record: dict) -> Samples:
    """Return the milliseconds per image of every run by name."""
    return {
        f"{count} servers": [1000 / r for r in values] for count, values in rates(record).items()
    }
