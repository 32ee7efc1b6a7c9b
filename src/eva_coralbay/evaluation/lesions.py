"""Lesions found and missed: connected components of the truth and of the prediction, matched.

A lesion is a connected component, with neighbors over faces, edges and corners (26). A predicted
and a true lesion may be matched if their intersection over union is at least 0.1, the threshold of
nnDetection (Baumgartner et al. 2021, https://arxiv.org/abs/2106.00817). Each is matched once at
most, and as many pairs are matched as possible, which is the rule of the PI-CAI challenge
(`evaluate_case` in picai_eval/eval.py, https://github.com/DIAGNijmegen/picai_eval). Every predicted
lesion without a partner is a false positive, also where it overlaps a true one; PI-CAI's default
leaves those out.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph

_MIN_IOU = 0.1
"""The intersection over union from which on two lesions may be matched."""

_NEIGHBORS = np.ones((3, 3, 3), dtype=bool)
"""Which voxels are connected: 26 neighbors."""


class Detection(NamedTuple):
    """How many lesions there are and were found in a scan."""

    true: int
    """The number of true lesions."""

    predicted: int
    """The number of predicted lesions."""

    matched: int
    """The number of pairs."""

    @property
    def sensitivity(self) -> float | None:
        """The share of the true lesions that were found; `None` if there are none."""
        return self.matched / self.true if self.true else None

    @property
    def false_positives(self) -> int:
        """The number of predicted lesions that match no true one (false positives)."""
        return self.predicted - self.matched

    @property
    def f1(self) -> float | None:
        """The harmonic mean of sensitivity and precision; `None` without any lesion."""
        both = self.true + self.predicted
        return 2 * self.matched / both if both else None


def detect(truth: npt.NDArray[np.bool_], prediction: npt.NDArray[np.bool_]) -> Detection:
    """Counts the lesions of a scan and matches them.

    Args:
        truth: The true voxels, of shape [D, H, W].
        prediction: The predicted voxels, of the same shape.
    """
    true, n_true = _components(truth)
    predicted, n_predicted = _components(prediction)
    both = truth & prediction
    if not both.any():
        return Detection(n_true, n_predicted, 0)
    pairs, common = np.unique(np.stack([true[both], predicted[both]]), axis=1, return_counts=True)
    sizes = np.bincount(true.ravel())[pairs[0]] + np.bincount(predicted.ravel())[pairs[1]]
    iou = common / (sizes - common)
    rows, columns = pairs[:, iou >= _MIN_IOU]
    # sparse, as tens of thousands of specks on each side would be a table of gigabytes
    shape = n_true + 1, n_predicted + 1
    may_match = sparse.csr_array((np.ones_like(rows), (rows, columns)), shape=shape)
    matched = csgraph.maximum_bipartite_matching(may_match) >= 0
    return Detection(n_true, n_predicted, int(matched.sum()))


def _components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
    """Returns the number of the component of each voxel, from 1 on, and how many there are."""
    labeled: Any = ndimage.label(mask, structure=_NEIGHBORS)
    components, number = labeled
    return components, int(number)
