"""What an encoder's input has to be: grid, orientation, intensities and sizes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from eva_coralbay.errors import EvaCoralbayError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Axes = tuple[int, int, int]
"""Voxels along the three axes of a volume."""

_OPPOSITES = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}

_Array = TypeVar("_Array", bound=Any)
"""A NumPy array or a PyTorch tensor."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The input that an encoder was trained on.

    Data hand over HU on the grid and in the orientation that are stated here; `normalize` gives
    what the network takes.
    """

    spacing: tuple[float, float, float] | None
    """Voxel spacing in mm along the three axes of the tensor; None for that of the task."""

    orientation: str
    """Axis codes of the tensor's three axes, such as "SPL": the direction in which each index
    grows."""

    hu_clip: tuple[float, float] | None
    """HU that intensities are clipped to; None where they are not clipped."""

    hu_offset: float
    """HU that become 0: the input of the network is `(hu - hu_offset) / hu_scale`."""

    hu_scale: float
    """HU that are one unit of the input."""

    window: Axes | None = None
    """Voxels of the crops that the encoder was trained on, the window for large volumes."""

    multiple_of: Axes = (1, 1, 1)
    """What the sizes of an input must be multiples of."""

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            EvaCoralbayError: If spacing, orientation, intensities or sizes are impossible.
        """
        if self.spacing is not None and not (
            len(self.spacing) == 3 and all(0 < value < float("inf") for value in self.spacing)
        ):
            raise EvaCoralbayError(
                f"spacing must be three positive numbers, in mm, got {self.spacing}."
            )
        axes = {min(code, _OPPOSITES.get(code, "")) for code in self.orientation}
        if len(self.orientation) != 3 or axes != {"L", "A", "I"}:
            raise EvaCoralbayError(
                "orientation must be three axis codes, one each of L/R, A/P and I/S, such as "
                f"'SPL', got {self.orientation!r}."
            )
        if self.hu_clip is not None and (
            len(self.hu_clip) != 2 or not self.hu_clip[0] < self.hu_clip[1]
        ):
            raise EvaCoralbayError(f"hu_clip must be (lower, upper) in HU, got {self.hu_clip}.")
        if not 0 < self.hu_scale < math.inf:
            raise EvaCoralbayError(f"hu_scale must be positive, got {self.hu_scale}.")
        if not math.isfinite(self.hu_offset):
            raise EvaCoralbayError(f"hu_offset must be a number of HU, got {self.hu_offset}.")
        if not _is_size(self.multiple_of):
            raise EvaCoralbayError(
                f"multiple_of must be three positive whole numbers, got {self.multiple_of}."
            )
        if self.window is not None and not (
            _is_size(self.window)
            and not any(n % m for n, m in zip(self.window, self.multiple_of, strict=True))
        ):
            raise EvaCoralbayError(
                f"window must be three positive whole numbers of voxels, multiples of "
                f"{self.multiple_of}, got {self.window}."
            )

    @classmethod
    def of_window(
        cls,
        lower: float,
        upper: float,
        *,
        spacing: tuple[float, float, float] | None,
        orientation: str,
        window: Axes | None = None,
        multiple_of: Axes = (1, 1, 1),
    ) -> "Preprocessing":
        """Describes the usual case: HU are clipped to a window that is mapped to [0, 1]."""
        return cls(
            spacing=spacing,
            orientation=orientation,
            hu_clip=(lower, upper),
            hu_offset=lower,
            hu_scale=upper - lower,
            window=window,
            multiple_of=multiple_of,
        )

    def summarize(self) -> str:
        """Returns orientation, spacing and HU in a few words."""
        if self.spacing is None:
            grid = "spacing of the task"
        elif len(set(self.spacing)) == 1:
            grid = f"{self.spacing[0]:g} mm"
        else:
            grid = f"{' × '.join(f'{value:g}' for value in self.spacing)} mm"
        clip = self.hu_clip
        window = "any HU" if clip is None else f"{clip[0]:.0f} to {clip[1]:.0f} HU"
        return f"{self.orientation}, {grid}, {window}"

    def normalize(self, hu: _Array) -> _Array:
        """Maps HU to the intensities that the network takes.

        Args:
            hu: Floating-point array or tensor of any shape, in HU.
        """
        clipped = hu if self.hu_clip is None else hu.clip(*self.hu_clip)
        return (clipped - self.hu_offset) / self.hu_scale

    def orient(self, volume: _Array, *, orientation: str = "SPL") -> _Array:
        """Turns a volume [..., D, H, W] to the orientation that the network takes.

        Args:
            volume: Array or tensor whose last three axes are the volume's.
            orientation: Axis codes of these axes.
        """
        return _reorient(volume, orientation, self.orientation)

    def orient_back(self, volume: _Array, *, orientation: str = "SPL") -> _Array:
        """Turns a feature map [..., D, H, W] of the network back; the inverse of `orient`."""
        return _reorient(volume, self.orientation, orientation)

    def orient_affine(
        self,
        affine: "npt.NDArray[np.float64]",
        size: Sequence[int],
        *,
        orientation: str = "SPL",
    ) -> "npt.NDArray[np.float64]":
        """Returns the affine of what `orient` returns.

        Args:
            affine: The affine [4, 4] of the volume: from its indices to mm.
            size: Voxels of the volume along its three axes.
            orientation: Axis codes of these axes.
        """
        import numpy as np  # here, as reading the facts of the zoo needs no NumPy

        turned = np.zeros((4, 4))
        turned[3, 3] = 1.0
        for index, code in enumerate(self.orientation):
            axis = _axis_of(code, orientation)
            is_flipped = orientation[axis] != code
            turned[axis, index] = -1.0 if is_flipped else 1.0
            turned[axis, 3] = size[axis] - 1.0 if is_flipped else 0.0
        return affine @ turned

    def to_scan_order(self, values: Sequence[float]) -> tuple[float, float, float]:
        """Returns what is along the axes of the tensor along those of a scan ("SPL").

        Args:
            values: A number for each axis of the tensor, such as a spacing or a size.
        """
        along = dict(zip((_axis_of(code, "SPL") for code in self.orientation), values, strict=True))
        return along[0], along[1], along[2]

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON types."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _is_size(values: Sequence[int]) -> bool:
    return len(values) == 3 and all(int(value) == value > 0 for value in values)


def _reorient(volume: _Array, source: str, target: str) -> _Array:
    """Permutes and flips the last three axes from one orientation to another."""
    leading = volume.ndim - 3
    order = [_axis_of(code, source) for code in target]
    flipped = [
        leading + index
        for index, (axis, code) in enumerate(zip(order, target, strict=True))
        if source[axis] != code
    ]
    axes = [*range(leading), *(leading + axis for axis in order)]
    if hasattr(volume, "permute"):
        return volume.permute(axes).flip(flipped)
    index = [slice(None, None, -1 if axis in flipped else 1) for axis in range(volume.ndim)]
    return volume.transpose(axes)[tuple(index)]


def _axis_of(code: str, orientation: str) -> int:
    """The axis of an orientation that runs along a code or against it."""
    return next(axis for axis, own in enumerate(orientation) if own in (code, _OPPOSITES[code]))
