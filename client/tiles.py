"""Tiles of one shape over the unknown region of a photo, joined without seams.

All tiles have one shape, so that the server can run those of several clients as one batch. They
begin at multiples of the network's stride: each of its poolings then joins the pixels that it would
join in the whole photo, and a tile's alpha differs only by the context that the tile lacks.

How size and margin were chosen, with the default network on photos of 1 to 1.6 megapixels of which
a tenth is unknown. Work is the share of their pixels that is sent (median of 19 photos). It stands
for time, since a pixel costs the same in a tile of any size. SAD is the change against the truth;
difference is the SAD between tiled and whole as a share of the whole's error.

====  ======  ====  ===============  ==========  =================
size  margin  work  SAD              difference  seams
====  ======  ====  ===============  ==========  =================
 128      16  0.47  +0.1 %           23 %        in plain sight
 192      16  0.52  +0.1 to +3.6 %   14 to 18 %  in plain sight
 256      16  0.56  -0.1 to +0.0 %   6 to 11 %   none in 1 photo
 256      32  0.70  -1.6 to +0.5 %   4 to 9 %    1 faint, 3 photos
 512      64  1.13                               not less work
====  ======  ====  ===============  ==========  =================

256 with 32 was served: on 7 photos, one of which is less work whole, SAD changed by -0.5 % in the
mean, and the time was 0.65 of the whole's (median, on two busy cores). The others are of 1 or 2
photos, 128 with weights that fade over the margin only.

For 256 with 32 the law is work = 0.54 + 1.52 * unknown at 1.5 megapixels, 0.24 + 2.29 * unknown at
6 and 0.14 + 2.54 * unknown at 13.5, where the band of unknown pixels is wide beside a margin.
"""

from collections.abc import Iterable, Sequence
from itertools import product

import cv2
import numpy as np

from matting.trimaps import is_unknown

STRIDE = 32
"""Five poolings by two."""
TILE, MARGIN = 256, 32
"""Side of a tile and width of its margin, in pixels."""

DEEPEST = 255
"""Distances from a tile's border count up to this; sums of weighted alphas then fit 32 bits."""

Corner = tuple[int, int]
"""Row and column of a tile's first pixel in the photo."""


def plan_tiles(trimap: np.ndarray, size: int, margin: int) -> list[Corner]:
    """Cover the unknown pixels with few square tiles.

    Every unknown pixel has `margin` pixels of its tile, or the photo's own border, on each side.
    A sweep over the trimap puts the first tile on the first row with something unknown, where it
    covers most of what is left, and so on. Of the eight ways to turn and mirror the trimap, the one
    that needs the fewest tiles is taken. On photos of 1 to 2 megapixels this needs 0.7 to 0.8
    times the tiles of a grid.

    Parameters
    ----------
    trimap : ndarray, uint8, shape (H, W)
    size : int
        Pixels on a side, a multiple of 32. Beyond the photo's right and lower borders, a tile goes
        on with its reflection: see `cut_tile`.
    margin : int
        `size` less two margins is a multiple of 32 above 0.

    Returns
    -------
    list of (int, int)
        Corners in reading order. Empty if nothing is unknown.
    """
    reach = size - 2 * margin
    if size % STRIDE or reach % STRIDE or not 0 < margin < size / 2:
        raise ValueError(
            f"tile of {size} with margin {margin}: expected a multiple of {STRIDE} pixels, "
            "with or without its margins"
        )
    before = -margin % STRIDE  # cells begin where tiles without their margins may begin
    cells = _cells(is_unknown(trimap), before)
    last = [max(0, -(-length // STRIDE) * STRIDE - size) for length in trimap.shape]

    def inside(cover: list[Corner]) -> set[Corner]:
        corners = np.array(cover, int).reshape(-1, 2) * STRIDE - before - margin
        return {(top, left) for top, left in np.clip(corners, 0, last).tolist()}

    turns = product((False, True), repeat=3)
    covers = [inside(_turned_cover(cells, reach // STRIDE, *turn)) for turn in turns]
    smallest = min(covers, key=len)
    return sorted(smallest)


def cut_tile(pixels: np.ndarray, corner: Corner, size: int) -> np.ndarray:
    """Cut a tile from H x W or H x W x C, reflected where it reaches beyond the photo."""
    top, left = corner
    tile = pixels[top : top + size, left : left + size]
    height, width = tile.shape[:2]
    if (height, width) == (size, size):
        return tile
    return cv2.copyMakeBorder(tile, 0, size - height, 0, size - width, cv2.BORDER_REFLECT_101)


def join_tiles(
    trimap: np.ndarray,
    corners: Sequence[Corner],
    alphas: Iterable[np.ndarray],
    size: int,
) -> np.ndarray:
    """Join the alphas of tiles to that of the photo.

    Where tiles overlap, their mean is taken, weighted with the distances from the tile's borders:
    what has more context counts more, and a tile fades out towards its borders (but not towards the
    photo's). Sums are integers: the order of the tiles changes nothing.

    Parameters
    ----------
    trimap : ndarray, uint8, shape (H, W)
    corners : sequence of (int, int)
    alphas : iterable of ndarray, uint8, shape (size, size)
        Taken one by one, so they need not exist all at once.
    size : int

    Returns
    -------
    ndarray, uint8, shape (H, W)
        Known pixels are 0 or 255 as the trimap says.
    """
    sums, weights = np.zeros(trimap.shape, np.uint32), np.zeros(trimap.shape, np.uint32)
    for (top, left), alpha in zip(corners, alphas, strict=True):
        here = np.s_[top : top + size, left : left + size]
        height, width = sums[here].shape
        weight = np.outer(
            _depth(top, size, trimap.shape[0])[:height], _depth(left, size, trimap.shape[1])[:width]
        )
        sums[here] += weight * alpha[:height, :width]
        weights[here] += weight
    joined = trimap.copy()
    for top, left in corners:  # nothing else of a large photo needs to be touched
        here = np.s_[top : top + size, left : left + size]
        mean = (sums[here] + weights[here] // 2) // weights[here]
        joined[here] = np.where(is_unknown(trimap[here]), mean, trimap[here])
    return joined


def _cells(unknown: np.ndarray, before: int) -> np.ndarray:
    """Say which squares of 32 x 32 pixels hold something unknown; the first begin at -before."""
    padding = [(before, -(length + before) % STRIDE) for length in unknown.shape]
    padded = np.pad(unknown, padding)
    rows, columns = (length // STRIDE for length in padded.shape)
    return padded.reshape(rows, STRIDE, columns, STRIDE).any(axis=(1, 3))


def _turned_cover(
    cells: np.ndarray, span: int, transposed: bool, upward: bool, leftward: bool
) -> list[Corner]:
    """Cover cells that are turned and mirrored, and turn the corners back."""
    turned = cells.T if transposed else cells
    height, width = turned.shape
    cover = _cover(turned[:: -1 if upward else 1, :: -1 if leftward else 1], span)
    corners = [
        (height - span - top if upward else top, width - span - left if leftward else left)
        for top, left in cover
    ]
    return [(top, left) for left, top in corners] if transposed else corners


def _cover(cells: np.ndarray, span: int) -> list[Corner]:
    """Cover all true cells with squares of span x span cells, sweeping down; some begin outside."""
    outside = span - 1
    cells = np.pad(cells, ((0, 0), (outside, outside)))
    top, cover = 0, []
    while (rows := np.flatnonzero(cells[top:].any(axis=1))).size:
        top += int(rows[0])
        strip = cells[top : top + span]
        first = int(strip[0].argmax())
        # Of the squares that cover the first cell, the one that covers most; if equal, the last.
        counts = strip[:, first - outside : first + span].sum(axis=0)
        covered = np.convolve(counts, np.ones(span, int), "valid")
        left = first - int(covered[::-1].argmax())
        strip[:, left : left + span] = False
        cover.append((top, left - outside))
    return cover


def _depth(start: int, size: int, length: int) -> np.ndarray:
    """Distances from both ends of a tile's side; an end on the photo's border is no end."""
    steps = np.arange(1, size + 1, dtype=np.uint32)
    depth = np.full(size, min(size // 2, DEEPEST), np.uint32)
    if start > 0:
        depth = np.minimum(depth, steps)
    if start + size < length:
        depth = np.minimum(depth, steps[::-1])
    return depth
