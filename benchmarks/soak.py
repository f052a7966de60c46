"""Half an hour of twice the load that the server has room for: is anything lost, does memory grow?

Twice as many bulk photos, of several sizes, are in flight all the time as the server has room for
in its queue and in progress. A photo that is turned away is sent again as the client does it, after
a random, growing pause. Interactive photos come at random times in between, for about a quarter of
the server's capacity. A photo that is lost or answered twice is a failure, and so is any byte of an
alpha that differs from what an idle server answers.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from threading import Event

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.measure import Samples, percentiles
from benchmarks.service import add_repository_argument, answered, model_config, picture_of
from benchmarks.tables import Row, Section
from client.arguments import positive
from client.connection import DEFAULT_TIMEOUT, Matte, Priority
from client.errors import ServerError
from client.request import Request
from server.launcher import LaunchError, launch

EXAMPLES = """examples:
  python -m benchmarks soak
  python -m benchmarks soak --minutes 5
"""
QUICK = "pictures of about 64x64, four seconds"
SIZES = ((128, 128), (192, 256), (256, 256), (320, 240), (384, 512))
QUICK_SIZES = ((64, 64), (48, 96))
OVERLOAD = 2
"""Bulk photos under way, as a multiple of those that the server has room for."""
INTERACTIVE = 4
"""Threads that send an interactive photo now and then."""
INTERACTIVE_SHARE = 0.25
"""Of the images a second that the server can answer, so many are interactive."""
TIMEOUT = 900.0
"""Seconds after which a photo is lost."""
PARTS = 5
"""The run is told in so many parts. The first does not count for the growth of memory."""

SECONDS_A_LOOK = 10
"""About how often memory is looked at."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own."""
    add_repository_argument(parser)
    parser.add_argument(
        "--minutes", type=positive(float), default=30, help="duration (%(default)s)"
    )


@dataclass(frozen=True)
class Photo:
    """A picture, and the alpha that it gets alone."""

    image: np.ndarray
    trimap: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Reply:
    """What became of one photo; times in seconds, `sent` since the start."""

    priority: Priority
    sent: float
    seconds: float
    rejections: int
    is_same: bool
    error: str | None


@dataclass(frozen=True)
class Memory:
    """Megabytes of the server and its backend, and of this process, `at` seconds from the start."""

    at: float
    server: float
    client: float


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return a result: counts of the run, and each part of it."""
    sizes = QUICK_SIZES if options.quick else SIZES
    seconds = 4.0 if options.quick else options.minutes * 60
    with launch(options.repository) as server, connections(server.grpc_url) as mattes:
        photos = [photo for size in sizes for photo in photos_of(mattes["bulk"], *size)]
        capacity = images_per_second(mattes["bulk"], photos, rounds=2 if options.quick else 8)
        room = room_of(server.grpc_url)
        before = answered(server)
        soak = Soak(mattes, photos, seconds)
        memory = soak.run(
            server.process.pid,
            bulk=OVERLOAD * room,
            pause=INTERACTIVE / (INTERACTIVE_SHARE * capacity),
        )
        by_server = answered(server) - before
    return {
        "sizes": sizes,
        "room": room,
        "seconds": seconds,
        **verdict(soak.replies, by_server),
        "parts": list(parts(soak.replies, memory)),
        "growth_mb_per_hour": growth(memory),
    }


def verdict(replies: list[Reply], by_server: int) -> dict[str, object]:
    """Return how many photos went wrong, of those that were sent and that the server answered."""
    lost = [reply.error for reply in replies if reply.error]
    twice = by_server - (len(replies) - len(lost))
    wrong = sum(not (reply.is_same or reply.error) for reply in replies)
    return {
        "sent": len(replies),
        "lost": len(lost),
        "first reasons": lost[:3],
        "answered twice": twice,
        "wrong alphas": wrong,
        "late": sum(reply.seconds > DEFAULT_TIMEOUT for reply in replies),
        "failed": bool(lost or twice or wrong),
    }


@contextmanager
def connections(url: str) -> Iterator[dict[Priority, Matte]]:
    """Return a connection for each priority."""
    with Matte(url, TIMEOUT) as bulk, Matte(url, TIMEOUT, "interactive") as interactive:
        yield {"bulk": bulk, "interactive": interactive}


def photos_of(matte: Matte, height: int, width: int) -> Iterator[Photo]:
    """Yield a picture of a size and its mirror image, with what they get from an idle server.

    Two of a size, so that it shows if photos get each other's alpha.
    """
    image, trimap = picture_of(height, width)
    for turned in ((image, trimap), (image[:, ::-1], trimap[:, ::-1])):
        yield Photo(*turned, matte.alpha(*turned, tile="off"))


def images_per_second(matte: Matte, photos: list[Photo], rounds: int) -> float:
    """Measure what the server can do, with as many requests under way as photos."""
    start = time.perf_counter()
    with ThreadPoolExecutor(len(photos)) as pool:
        list(pool.map(lambda p: matte.alpha(p.image, p.trimap, tile="off"), photos * rounds))
    return len(photos) * rounds / (time.perf_counter() - start)


def room_of(url: str) -> int:
    """Return how many bulk requests the server takes: those of its queue, and the one at work."""
    return model_config(url).dynamic_batching.default_queue_policy.max_queue_size + 1


class Soak:
    """The run: `replies` has every photo that was sent, once all are answered."""

    def __init__(self, mattes: dict[Priority, Matte], photos: list[Photo], seconds: float) -> None:
        self.mattes, self.photos, self.seconds = mattes, photos, seconds
        self.replies: list[Reply] = []
        self._stopped = Event()

    def run(self, server: int, bulk: int, pause: float) -> list[Memory]:
        """Send until the time is over, and wait for the answers.

        Parameters
        ----------
        server : int
            Process whose memory is watched, with its children.
        bulk : int
            Photos under way.
        pause : float
            Seconds, on average, between an interactive thread's photos.

        Raises
        ------
        server.LaunchError
            That process, or one of its children, died.
        """
        self._start = time.monotonic()
        with ThreadPoolExecutor(bulk + INTERACTIVE) as pool:
            work = [pool.submit(self._work, "interactive", n, pause) for n in range(INTERACTIVE)]
            work += [pool.submit(self._work, "bulk", INTERACTIVE + n) for n in range(bulk)]
            try:
                memory = self._watch(server)
            except psutil.NoSuchProcess:
                for matte in self.mattes.values():
                    matte.close()  # no server will come back that would be worth waiting for
                raise LaunchError("the server, or what runs its model, died on the way") from None
            finally:
                self._stopped.set()
            for done in work:
                done.result()
        return memory

    def _watch(self, server: int) -> list[Memory]:
        memory = []
        looks = PARTS * max(4, round(self.seconds / PARTS / SECONDS_A_LOOK))
        for _ in tqdm(range(looks), unit="look", disable=None):
            at = time.monotonic() - self._start
            memory.append(Memory(at, megabytes(server), megabytes(None)))
            time.sleep(self.seconds / looks)
        return memory

    def _work(self, priority: Priority, seed: int, pause: float = 0) -> None:
        random = Random(seed)
        while not self._stopped.is_set():
            self.replies.append(self._ask(priority, random.choice(self.photos)))
            if pause:
                self._stopped.wait(random.expovariate(1 / pause))

    def _ask(self, priority: Priority, photo: Photo) -> Reply:
        request, sent = Request(), time.monotonic()
        is_same, error = False, None
        try:
            alpha = self.mattes[priority].alpha(photo.image, photo.trimap, "off", request=request)
            is_same = np.array_equal(alpha, photo.alpha)
        except ServerError as failure:
            error = str(failure)
        seconds = time.monotonic() - sent
        return Reply(priority, sent - self._start, seconds, request.rejections, is_same, error)


def megabytes(pid: int | None) -> float:
    """Return the memory of a process and its children (None: of this one alone), in megabytes.

    What they share is counted once: Linux's proportional set size.
    """
    process = psutil.Process(pid)
    family = [process, *(process.children(recursive=True) if pid else [])]
    return sum(member.memory_full_info().pss for member in family) / 1e6


def parts(replies: list[Reply], memory: list[Memory]) -> Iterator[dict]:
    """Yield what each part of the run was like; a photo belongs to the one in which it was sent."""
    length = len(memory) // PARTS
    edges = [0.0, *(look.at for look in memory[length::length]), float("inf")]
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        sent = [reply for reply in replies if begin <= reply.sent < end and not reply.error]
        bulk = [reply for reply in sent if reply.priority == "bulk"]
        looks = memory[number * length :][:length]
        yield {
            "answered": len(sent),
            "rejections": sum(reply.rejections for reply in sent),
            "interactive": times([reply for reply in sent if reply.priority == "interactive"]),
            "bulk": times(bulk),
            "bulk, taken at once": times([reply for reply in bulk if not reply.rejections]),
            "server_mb": round(float(np.mean([look.server for look in looks])), 1),
            "client_mb": round(float(np.mean([look.client for look in looks])), 1),
        }


def times(replies: list[Reply]) -> dict[str, float | None]:
    """Return p50 and p99 of seconds; None where there are too few."""
    if not replies:
        return {"p50": None, "p99": None}
    found = percentiles([round(reply.seconds, 3) for reply in replies])
    return {"p50": found["p50"], "p99": found["p99"]}


def growth(memory: list[Memory]) -> dict[str, float]:
    """Return the slope of the straight line through memory after the first part, in MB an hour."""
    looks = memory[len(memory) // PARTS :]
    hours = [look.at / 3600 for look in looks]
    return {
        name: round(float(np.polyfit(hours, [getattr(look, name) for look in looks], 1)[0]), 1)
        for name in ("server", "client")
    }


def render(record: dict) -> list[Section]:
    """Return a record's table, and what it amounts to."""
    minutes = record["seconds"] / 60 / PARTS
    rows: list[Row] = [
        {
            "minutes": f"{minutes * number:.3g} to {minutes * (number + 1):.3g}",
            "images": str(part["answered"]),
            "turned away": str(part["rejections"]),
            "interactive, p50 / p99 s": both(part["interactive"]),
            "bulk, p50 / p99 s": both(part["bulk"]),
            "bulk taken at once, p50 / p99 s": both(part["bulk, taken at once"]),
            "server, MB": f"{part['server_mb']:.0f}",
            "client, MB": f"{part['client_mb']:.0f}",
        }
        for number, part in enumerate(record["parts"])
    ]
    again = sum(part["rejections"] for part in record["parts"])
    grown = record["growth_mb_per_hour"]
    text = (
        f"{record['sent']} photos, turned away and sent again {again} times: "
        f"{record['lost']} lost, {record['answered twice']} answered twice, "
        f"{record['wrong alphas']} with an alpha other than the photo's, {record['late']} later "
        f"than the client waits unless told otherwise ({DEFAULT_TIMEOUT:.0f} s). "
        "After the first part memory grew by "
        f"{grown['server']:.0f} MB an hour (server) and {grown['client']:.0f} (client)."
    )
    return [rows, text, *([record["first reasons"]] if record["lost"] else [])]


def both(times: dict[str, float | None]) -> str:
    """Return p50 and p99 for a table."""
    return " / ".join("–" if value is None else f"{value:.1f}" for value in times.values())


def samples(record: dict) -> Samples:
    """Return no times: those of an overload say how long the queue is."""
    return {}
