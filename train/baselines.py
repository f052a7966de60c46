"""Matting that needs no learning: what a trained network is measured against.

All take H×W×3 uint8 RGB and H×W uint8 trimap (0 background, 255 foreground, all else unknown) and
return H×W uint8 alpha, 0 and 255 where the trimap says so.
"""

import cv2
import numpy as np

from matting.trimaps import BACKGROUND, FOREGROUND, is_unknown


def blend_by_distance(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Fade from the known foreground to the known background by the distance to each.

    It never looks at the image: what is worse than this has learnt nothing.
    """
    to_foreground, to_background = (
        cv2.distanceTransform((trimap != known).astype(np.uint8), cv2.DIST_L2, 5)
        for known in (FOREGROUND, BACKGROUND)
    )
    # Every pixel is far from one of them at least, unless the picture has no pixels.
    return as_alpha(to_background / (to_foreground + to_background), trimap)


def closed_form(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Levin et al., "A Closed-Form Solution to Natural Image Matting", as pymatting solves it.

    Raises ValueError where pymatting does: no known foreground or background, or no convergence.
    """
    from pymatting import estimate_alpha_cf

    return as_alpha(estimate_alpha_cf(image / 255, for_pymatting(trimap)), trimap)


def knn(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Chen et al., "KNN Matting", as pymatting solves it. Raises as `closed_form` does."""
    from pymatting import estimate_alpha_knn

    return as_alpha(estimate_alpha_knn(image / 255, for_pymatting(trimap)), trimap)


def for_pymatting(trimap: np.ndarray) -> np.ndarray:
    """Return the trimap as pymatting wants it: 0, 0.5 and 1, float64."""
    return 0.5 * (trimap != BACKGROUND) + 0.5 * (trimap == FOREGROUND)


def as_alpha(alpha: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Round an alpha in 0..1 to uint8, and take known pixels from the trimap."""
    rounded = np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)
    return np.where(is_unknown(trimap), rounded, trimap)
