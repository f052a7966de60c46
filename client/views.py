"""A photo seen as it is, mirrored, upside down and both: the network's answers differ a little.

Their mean is nearer to the truth than any of them ("self-ensemble": Lim et al., "Enhanced deep
residual networks for single image super-resolution", CVPR workshops 2017); docs/client.md says by
how much.
"""

from collections.abc import Callable

import numpy as np

VIEWS = (1, 2, 4)
"""As it is; also mirrored; also upside down, and both."""


def view(pixels: np.ndarray, number: int) -> np.ndarray:
    """Mirror H x W or H x W x C if `number` is 1, turn it upside down if 2, both if 3.

    Twice is as it was. Nothing is copied.
    """
    down = -1 if number & 2 else 1
    across = -1 if number & 1 else 1
    return pixels[::down, ::across]


def mean_over_views(
    alpha: Callable[[np.ndarray, np.ndarray], np.ndarray],
    image: np.ndarray,
    trimap: np.ndarray,
    views: int,
) -> np.ndarray:
    """Return the mean of `alpha(image, trimap)` over the first `views` views, rounded half up.

    Parameters
    ----------
    alpha : callable
        (image, trimap) -> alpha, H x W uint8.
    image : ndarray, uint8, shape (H, W, 3)
    trimap : ndarray, uint8, shape (H, W)
    views : int
        One of `VIEWS`.

    Returns
    -------
    ndarray, uint8, shape (H, W)

    Raises
    ------
    ValueError
        `views` is no such number.
    """
    if views not in VIEWS:
        raise ValueError(f"{views} views: expected one of {VIEWS}")
    if views == 1:
        return alpha(image, trimap)
    total = np.full(trimap.shape, views // 2, np.uint16)
    for number in range(views):
        total += view(alpha(view(image, number), view(trimap, number)), number)
    return (total // views).astype(np.uint8)
