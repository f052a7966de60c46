"""Rectangles over the unknown region of a photo, joined without seams.

They begin at multiples of the network's stride: each of its poolings then joins the pixels that it
would join in the whole photo, and a tile's alpha differs only by the context that the tile lacks.
Where the photo ends the tile ends, and the server pads it as it would pad the photo.

How the margin was chosen, with an earlier default network on 12 photos of 1.5 megapixels of which a
tenth is unknown. Work is the share of the photo's pixels that is sent (median). It stands for time,
since a pixel costs the same in a rectangle of any size. SAD is the change of the mean against the
truth; difference is the SAD between tiled and whole as a share of the whole's error (mean).

======  ====  ======  ==========
margin  work  SAD     difference
======  ====  ======  ==========
     8        +1.6 %  11 %
    16  0.39  +0.8 %  9 %
    32  0.47  +0.1 %  6 %
======  ====  ======  ==========

Squares of one size, which a server could join into batches, are 1.5 times the work: 0.70 with 256
pixels on a side and a margin of 32. No rectangles can be less than the 0.34 that lies in cells of
32 pixels within 32 pixels of something unknown.

Inside of tiles nothing is left to skip. The decoder's last layers and the refiner, a third of the
work, see 12 pixels far; blocks of 64 pixels around the unknown would with these be 1.4 times the
tiles' pixels, blocks of 256 still 1.1. To crop each tile there to its unknown pixels would be exact
and save 6 % of the multiplications (median): tiles have unknown pixels nearly everywhere.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from matting.trimaps import is_unknown

STRIDE = 32
"""Five poolings by two."""
MARGIN = 32
"""Pixels of context that an unknown pixel has at least."""
LARGEST = 1024
"""Pixels on a tile's longer side at most: bounds the server's memory."""
SMALLEST_TILE = 2 * MARGIN + STRIDE
"""The least of such limits."""

TILE_COST = 4000
"""Pixels that take as long as a request does besides: 12 ms on two CPU cores."""
MOST_BOXES = 500
"""With more, the region is looked at in coarser cells: joining takes the square of their number."""
MOST_JOINED = 2000
"""Where tiles are too small for coarser cells: with more, boxes stay as they are.

On 24 megapixels joining 1204 takes a second, for 7 % less work; 4320, which are as large as tiles
of 96 pixels can hold, took 9 s for nothing.
"""
LARGEST_ALWAYS_WHOLE = 512 * 512
"""Pixels in an image that is quick enough, and exact, whole."""
WORTH_TILING = 0.8
"""Tiles with fewer pixels than this share of the photo take less time than the whole photo."""
AFTER_REFUSAL = 256
"""Pixels on a side at most of the tiles that follow when a server could not take usual ones."""
LARGEST_WHOLE = 4096 * 2176
"""Pixels in the largest image that is sent whole, padded: what the default model takes."""
DEEPEST = 255
"""Distances from a tile's border count up to this; sums of weighted alphas then fit 32 bits."""


class Tile(NamedTuple):
    """A rectangle of a photo, in pixels; `bottom` and `right` lie outside it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Return the tile's part of H x W or H x W x C, not copied."""
        return array[self.top : self.bottom, self.left : self.right]


def plan_tiles(trimap: np.ndarray, largest: int = LARGEST) -> list[Tile]:
    """Cover the unknown pixels with few, small rectangles.

    Every unknown pixel has `MARGIN` pixels of its tile, or the photo's own border, on each side.
    The unknown runs of each row of cells are boxes at first; then those two become one whose common
    rectangle saves most, until none saves any.

    Parameters
    ----------
    trimap : ndarray, uint8, shape (H, W)
    largest : int
        Pixels on a side at most, a multiple of 32 from 96.

    Returns
    -------
    list of Tile
        In reading order. Empty if nothing is unknown.

    Raises
    ------
    ValueError
        `largest` is no such number.
    """
    if largest % STRIDE or largest < SMALLEST_TILE:
        raise ValueError(f"tile of {largest}: expected a multiple of {STRIDE} from {SMALLEST_TILE}")
    inside = largest - 2 * MARGIN
    unknown = is_unknown(trimap)
    cell = STRIDE
    boxes = _boxes(unknown, cell, inside)
    while len(boxes) > MOST_BOXES and 2 * cell <= inside:
        cell *= 2
        boxes = _boxes(unknown, cell, inside)

    def with_margins(boxes: np.ndarray) -> np.ndarray:
        first = (boxes[..., :2] - MARGIN) // STRIDE * STRIDE
        last = -(-(boxes[..., 2:] + MARGIN) // STRIDE) * STRIDE
        return np.concatenate([np.maximum(first, 0), np.minimum(last, trimap.shape)], axis=-1)

    def savings(box: np.ndarray, others: np.ndarray) -> np.ndarray:
        common = with_margins(_union(box, others))
        saved = _area(with_margins(box)) + _area(with_margins(others)) - _area(common) + TILE_COST
        return np.where((common[:, 2:] - common[:, :2] <= largest).all(axis=1), saved, -1)

    if 0 < len(boxes) <= MOST_JOINED:
        boxes = _join(boxes, savings)
    return sorted(Tile(*tile) for tile in with_margins(boxes).tolist())


def worthwhile_tiles(trimap: np.ndarray) -> list[Tile] | None:
    """Plan tiles of a trimap, uint8, H x W; None for the whole photo.

    Whole is what fits a server and of which tiles save nothing worth their difference.
    """
    if trimap.size <= LARGEST_ALWAYS_WHOLE:
        return None
    tiles = plan_tiles(trimap)
    work = sum(tile.pixels for tile in tiles)
    if padded_pixels(trimap) <= LARGEST_WHOLE and work >= WORTH_TILING * trimap.size:
        return None
    return tiles


def smaller_tiles(trimap: np.ndarray, refused: list[Tile] | None) -> list[Tile] | None:
    """Plan tiles smaller than those refused (None: the whole photo); None if there are none."""
    too_large = max(tile.pixels for tile in refused) if refused else trimap.size
    for largest in (LARGEST, AFTER_REFUSAL):
        tiles = plan_tiles(trimap, largest)
        if max(tile.pixels for tile in tiles) < too_large:
            return tiles
    return None


def padded_pixels(trimap: np.ndarray) -> int:
    """Return how many pixels a server counts: it pads both sides to multiples of the stride."""
    return math.prod(-(-side // STRIDE) * STRIDE for side in trimap.shape)


def join_tiles(
    trimap: np.ndarray, tiles: Sequence[Tile], alphas: Iterable[np.ndarray]
) -> np.ndarray:
    """Join the alphas of tiles to that of the photo.

    Where tiles overlap, their mean is taken, weighted with the distances from the tile's borders:
    what has more context counts more, and a tile fades out towards its borders (but not towards the
    photo's). Sums are integers: the order of the tiles changes nothing.

    Parameters
    ----------
    trimap : ndarray, uint8, shape (H, W)
    tiles : sequence of Tile
    alphas : iterable of ndarray, uint8
        As large as their tiles. Taken one by one, so they need not exist all at once.

    Returns
    -------
    ndarray, uint8, shape (H, W)
        Known pixels are 0 or 255 as the trimap says.
    """
    sums, weights = np.zeros(trimap.shape, np.uint32), np.zeros(trimap.shape, np.uint32)
    height, width = trimap.shape
    for tile, alpha in zip(tiles, alphas, strict=True):
        weight = np.outer(
            _depth(tile.top, tile.bottom, height), _depth(tile.left, tile.right, width)
        )
        tile.cut(sums)[:] += weight * alpha
        tile.cut(weights)[:] += weight
    joined = trimap.copy()
    for tile in tiles:  # nothing else of a large photo needs to be touched
        known, weight = tile.cut(trimap), tile.cut(weights)
        mean = (tile.cut(sums) + weight // 2) // weight
        tile.cut(joined)[:] = np.where(is_unknown(known), mean, known)
    return joined


def _boxes(unknown: np.ndarray, cell: int, longest: int) -> np.ndarray:
    """Box what is unknown in each run of cells along a row of cells, no longer than `longest`.

    Returns N x 4: the first row and column, and those after the last.
    """
    boxes = []
    for top in range(0, len(unknown), cell):
        strip = unknown[top : top + cell]
        columns = strip.any(axis=0)
        for left, right in _runs(columns, cell, longest // cell):
            part = strip[:, left:right]
            rows = np.flatnonzero(part.any(axis=1))
            inside = np.flatnonzero(columns[left:right])
            boxes.append(
                (top + rows[0], left + inside[0], top + rows[-1] + 1, left + inside[-1] + 1)
            )
    return np.array(boxes, int).reshape(-1, 4)


def _runs(columns: np.ndarray, cell: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the first column and the one after the last of runs of at most so many filled cells."""
    cells = np.pad(columns, (0, -len(columns) % cell)).reshape(-1, cell).any(axis=1)
    ends = np.flatnonzero(np.diff(cells, prepend=False, append=False)).tolist()
    for first, last in zip(ends[::2], ends[1::2], strict=True):
        for start in range(first, last, most):
            yield start * cell, min(start + most, last) * cell


def _join(boxes: np.ndarray, savings: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Make one of those two boxes that save most by it, again and again."""
    boxes = boxes.copy()
    gains = np.stack([savings(box, boxes) for box in boxes])
    np.fill_diagonal(gains, -1)
    gone = np.zeros(len(boxes), bool)
    while gains.flat[best := int(gains.argmax())] > 0:
        one, other = divmod(best, len(boxes))
        boxes[one] = _union(boxes[one], boxes[other])
        inside = (boxes[one] == _union(boxes[one], boxes)).all(axis=1)
        inside[one] = False
        gone |= inside
        gains[one] = gains[:, one] = np.where(gone, -1, savings(boxes[one], boxes))
        gains[inside] = gains[:, inside] = gains[one, one] = -1
    return boxes[~gone]


def _union(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the smallest box around one and each of the others."""
    return np.concatenate(
        [
            np.minimum(box[..., :2], others[..., :2]),
            np.maximum(box[..., 2:], others[..., 2:]),
        ],
        axis=-1,
    )


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def _depth(start: int, end: int, length: int) -> np.ndarray:
    """Distances from both ends of a tile's side; an end on the photo's border is no end."""
    steps = np.arange(1, end - start + 1, dtype=np.uint32)
    depth = np.full(end - start, DEEPEST, np.uint32)
    if start > 0:
        depth = np.minimum(depth, steps)
    if end < length:
        depth = np.minimum(depth, steps[::-1])
    return depth
