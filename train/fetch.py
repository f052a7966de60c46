"""Download published weights, checked by the SHA-256 prefix in their names.

An interrupted download continues where it stopped, also in a later run: the file is named
`.partial` until it is complete and has passed the check. http_proxy, https_proxy and no_proxy are
respected.

examples:
  python -m train.fetch stage3
  python -m train.fetch vgg16 -o weights
"""

import argparse
import sys
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential
from tqdm import tqdm

from matting.files import sha256
from matting.signals import run_until_stopped

DIM = "https://download.openmmlab.com/mmediting/mattors/dim"
PUBLISHED = {
    "stage1": f"{DIM}/dim_stage1_v16_1x1_1000k_comp1k_SAD-53.8_20200605_140257-979a420f.pth",
    "stage2": f"{DIM}/dim_stage2_v16_pln_1x1_1000k_comp1k_SAD-52.3_20200607_171909-d83c4775.pth",
    "stage3": f"{DIM}/dim_stage3_v16_pln_1x1_1000k_comp1k_SAD-50.6_20200609_111851-647f24b6.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
"""mmediting's three stages, and what training starts from: torchvision's VGG16 (IMAGENET1K_V1)."""

ATTEMPTS = 5
TIMEOUT = urllib3.Timeout(connect=10, read=30)
# Redirects alone: what fails is asked for again here. With a total it would heed Retry-After.
REDIRECTS = urllib3.Retry(
    total=None, connect=False, read=False, other=0, redirect=5, raise_on_redirect=False
)
BLOCK = 1 << 16


class FetchError(RuntimeError):
    """A file could not be downloaded, or is not the right one. The message is one line."""


class ConnectionLostError(RuntimeError):
    """The connection or the server failed in a way that may pass."""


def fetch(weights: str, folder: str | Path, source: str | None = None) -> Path:
    """Download published weights and return their path.

    Parameters
    ----------
    weights : str
        One of `PUBLISHED`.
    folder : str or Path
        Where the file goes, under its published name. One that is there and right is kept.
    source : str, optional
        URL of another folder that has the file.

    Raises
    ------
    FetchError
        The server does not have the file or cannot be reached, what came is not the published
        file, or the folder cannot be written.
    """
    url = PUBLISHED[weights]
    name = url.rsplit("/", 1)[-1]
    if source:
        url = source.rstrip("/") + "/" + name
    path = Path(folder) / name
    if path.is_file() and matches_name(path, name):
        return path
    partial = path.with_name(name + ".partial")
    retrying = Retrying(
        retry=retry_if_exception_type(ConnectionLostError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=0.5, max=10),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        retrying(download_rest, url, partial)
    except RetryError as error:
        reason = error.last_attempt.exception()
        raise FetchError(f"{url}: {reason}, {ATTEMPTS} times; run again to continue") from error
    except OSError as error:
        raise FetchError(
            f"{error.filename or partial}: cannot be written ({error.strerror})"
        ) from error
    if not matches_name(partial, name):
        partial.unlink()
        raise FetchError(
            f"{url}: the download does not have the SHA-256 in its name and was removed; try "
            "again, or get the file elsewhere (--source)"
        )
    partial.replace(path)
    return path


def matches_name(path: Path, name: str) -> bool:
    """Say if a file's SHA-256 begins with the hexadecimal digits at the end of a name."""
    return sha256(path).startswith(Path(name).stem.rsplit("-", 1)[1])


def download_rest(url: str, partial: Path) -> None:
    """Append to `partial` what it lacks; raise `ConnectionLostError` if a retry may help."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with pool_for(url) as pool:
            response = pool.request("GET", url, headers=headers, preload_content=False)
            with response:
                save_body(response, url, partial, have)
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", error)  # what is neither connect nor read is wrapped
        raise ConnectionLostError(f"the connection failed ({type(reason).__name__})") from error


def pool_for(url: str) -> urllib3.PoolManager:
    """Return a pool of connections, through a proxy if the environment names one for the URL."""
    settings = {"retries": REDIRECTS, "timeout": TIMEOUT}
    scheme, host = urlsplit(url)[:2]
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return urllib3.PoolManager(**settings)
    proxy = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    if proxy.scheme not in ("http", "https"):
        raise FetchError(f"{scheme}_proxy begins with {proxy.scheme}://, expected http or https")
    login = b64encode(unquote(proxy.auth or "").encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {login}"} if login else None
    return urllib3.ProxyManager(proxy.url, proxy_headers=headers, **settings)


def save_body(response: urllib3.BaseHTTPResponse, url: str, partial: Path, have: int) -> None:
    if response.status == 416:  # nothing lies behind what we have: it is whole, or not this file
        return
    if response.status >= 500 or response.status == 429:
        raise ConnectionLostError(f"the server answered {response.status}")
    if response.status not in (200, 206):
        raise FetchError(f"{url}: the server answered {response.status} {response.reason or ''}")
    if response.status == 200:  # the server ignored the range and sends the whole file
        have = 0
    size = response.headers.get("Content-Length")
    with (
        partial.open("ab" if have else "wb") as file,
        tqdm(
            desc=partial.name.removesuffix(".partial"),
            total=have + int(size) if size else None,
            initial=have,
            unit="B",
            unit_scale=True,
            disable=None,  # no bar where nobody watches
        ) as progress,
    ):
        for block in response.stream(BLOCK):
            file.write(block)
            progress.update(len(block))


def source_url(text: str) -> str:
    with suppress(ValueError):  # of a host in brackets that is no IPv6 address
        if urlsplit(text).scheme in ("http", "https"):
            return text
    raise argparse.ArgumentTypeError(f"{text} is not a valid URL with http:// or https://")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "weights",
        choices=PUBLISHED,
        help="one of mmediting's stages (stage3 is the best), or VGG16, to start training from",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="folder (the current one)"
    )
    parser.add_argument(
        "--source", type=source_url, metavar="URL", help="URL of another folder with the file"
    )
    options = parser.parse_args(arguments)
    try:
        print(fetch(options.weights, options.output, options.source))
    except FetchError as error:
        print(f"train.fetch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_until_stopped("train.fetch", main))
