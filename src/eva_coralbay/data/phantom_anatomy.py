"""The anatomy of generated scans: a patient is drawn, and painted organ by organ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CLASSES = ("background", "liver", "spleen", "right_kidney", "left_kidney", "lungs", "spine")
"""The name of each label value."""

_LIVER, _SPLEEN, _RIGHT_KIDNEY, _LEFT_KIDNEY, _LUNGS, _SPINE = range(1, len(CLASSES))

_AIR, _FAT, _MUSCLE, _LUNG = -1000.0, -100.0, 55.0, -840.0
"""Intensities that do not depend on the contrast phase, in HU."""

_WARP_MM = 5.0
"""The standard deviation of the random deformation at a control point."""

_HALF_WIDTH, _HALF_DEPTH = 146.0, 107.0
"""Half the size of an average trunk in mm, which the places of the organs are given for."""

_Array = npt.NDArray[np.float32]
_Bools = npt.NDArray[np.bool_]


def draw(
    random: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Draws a patient and scans it.

    Args:
        random: What everything is drawn by.
        shape: The number of voxels along (D, H, W).
        spacing_mm: The spacing along (D, H, W) in mm.

    Returns:
        The HU with the blur and the noise of a scanner, and the label map, each of the shape.
    """
    patient = _Patient.draw(random)
    canvas = _paint(random, patient, _positions(random, shape, spacing_mm))
    return _blur(canvas.hounsfield) + _noise(random, shape), canvas.labels


class _Patient(NamedTuple):
    """What differs between patients; lengths in mm."""

    half_width: float
    half_depth: float
    fat: float
    """The thickness of the subcutaneous fat."""
    wall: float
    """The thickness of the muscle around the cavity of the trunk."""
    diaphragm: float
    """How far breathing moves the diaphragm up."""
    contrast: float
    """The contrast agent taken up, from 0, unenhanced, to 1, portal venous; at least 0.6."""

    @classmethod
    def draw(cls, random: np.random.Generator) -> "_Patient":
        half_width = random.uniform(132.0, 160.0)
        return cls(
            half_width=half_width,
            half_depth=half_width * random.uniform(0.68, 0.78),
            fat=random.uniform(6.0, 20.0),
            wall=random.uniform(11.0, 16.0),
            diaphragm=random.uniform(-12.0, 14.0),
            contrast=random.uniform(0.6, 1.0),
        )


class _Position(NamedTuple):
    """Where each voxel lies in the patient, in mm from the middle; each of shape [D, H, W]."""

    up: _Array
    back: _Array
    left: _Array


class _Canvas:
    """A scan in the making: what is painted later covers what was painted before."""

    def __init__(self, random: np.random.Generator, patient: _Patient, position: _Position) -> None:
        self.random = random
        self.patient = patient
        self.position = position
        self.hounsfield = np.full(position.up.shape, _AIR, dtype=np.float32)
        self.labels = np.zeros(position.up.shape, dtype=np.uint8)
        # positions as fractions of a trunk of average size
        self._across = position.left * np.float32(_HALF_WIDTH / patient.half_width)
        self._along = position.back * np.float32(_HALF_DEPTH / patient.half_depth)

    def ellipsoid(
        self,
        *,
        center: tuple[float, float, float],
        radii: tuple[float, float, float],
        tilt: float = 0.0,
    ) -> _Bools:
        """Returns the inside of an ellipsoid; see `distance`."""
        return self.distance(center=center, radii=radii, tilt=tilt) < 1

    def distance(
        self,
        *,
        center: tuple[float, float, float],
        radii: tuple[float, float, float],
        tilt: float = 0.0,
    ) -> _Array:
        """Returns the squared distance from the middle of an ellipsoid, 1 on its surface.

        Its place, size and tilt vary a little from patient to patient.

        Args:
            center: Its middle as (up, back, left) in mm, in a trunk of average size.
            radii: Its half axes along (up, back, left) in mm.
            tilt: How far its long axis leans to the left at the top, in degrees.
        """
        up, back, left = np.add(center, self.random.normal(0.0, 3.0, size=3)).astype(np.float32)
        height, depth, width = np.multiply(radii, self.random.uniform(0.92, 1.08, size=3)).astype(
            np.float32
        )
        angle = np.deg2rad(tilt + self.random.uniform(-6.0, 6.0))
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        above, behind, beside = self.position.up - up, self._along - back, self._across - left
        return (
            ((cosine * above + sine * beside) / height) ** 2
            + (behind / depth) ** 2
            + ((cosine * beside - sine * above) / width) ** 2
        )

    def column(self, *, back: float, left: float, radius: float, depth: float = 1.0) -> _Bools:
        """Returns the inside of a vertical cylinder.

        Args:
            back: How far its middle lies behind that of the trunk, in mm.
            left: How far its middle lies left of that of the trunk, in mm.
            radius: Half of its width in mm.
            depth: Its depth as a fraction of its width.
        """
        aside, behind = self._across - np.float32(left), self._along - np.float32(back)
        return aside**2 + (behind / np.float32(depth)) ** 2 < radius**2

    def trunk(self, inset: float) -> _Bools:
        """Returns the inside of the trunk, less a layer of the given thickness in mm."""
        aside = np.abs(self.position.left) / np.float32(self.patient.half_width - inset)
        behind = np.abs(self.position.back) / np.float32(self.patient.half_depth - inset)
        return aside**2.4 + behind**2.4 < 1

    def paint(self, where: _Bools, hounsfield: float, *, label: int = 0) -> None:
        """Fills a region with an intensity in HU and a label."""
        self.hounsfield[where] = hounsfield + self.random.normal(0.0, 4.0)
        self.labels[where] = label

    def enhanced(self, plain: float, gain: float) -> float:
        """Returns the intensity of an organ in HU, in this patient's contrast phase."""
        return plain + gain * self.patient.contrast + self.random.normal(0.0, 4.0)


def _paint(random: np.random.Generator, patient: _Patient, position: _Position) -> _Canvas:
    """Paints a patient, from the skin to the organs."""
    canvas = _Canvas(random, patient, position)
    cavity = canvas.trunk(patient.fat + patient.wall)
    diaphragm = _diaphragm(patient, position)
    _paint_wall(canvas, cavity)
    _paint_chest(canvas, cavity & (position.up > diaphragm))
    belly = cavity & (position.up < diaphragm - np.float32(3.0))
    _paint_gut(canvas, belly)
    _paint_organs(canvas, belly)
    _paint_vessels(canvas)
    _paint_spine(canvas)
    return canvas


def _diaphragm(patient: _Patient, position: _Position) -> _Array:
    """Returns the height of the diaphragm over each voxel: two domes, the right one higher.

    In front it ends higher than at the back.
    """
    domes = []
    for apex, left in ((42.0, -62.0), (38.0, 66.0)):
        distance = ((position.left - np.float32(left)) / 88) ** 2 + (
            (position.back + np.float32(8.0)) / 80
        ) ** 2
        domes.append(np.float32(apex + patient.diaphragm) - 55 * distance)
    return np.maximum(np.maximum(*domes), -20 - np.float32(0.5) * position.back)


def _paint_wall(canvas: _Canvas, cavity: _Bools) -> None:
    """Paints skin, fat, muscles and ribs, and fills the cavity with fat."""
    patient, position = canvas.patient, canvas.position
    muscle = canvas.trunk(patient.fat)
    canvas.paint(canvas.trunk(0.0), _FAT)
    canvas.paint(muscle, _MUSCLE)
    rib_height = (position.up - np.float32(0.4) * position.back) % np.float32(29.0)
    middle = canvas.trunk(patient.fat + 2.0) & ~canvas.trunk(patient.fat + patient.wall - 1.0)
    is_chest = position.up > -70 - 1.2 * position.back
    canvas.paint(middle & is_chest & (rib_height < 12), 330.0)
    canvas.paint(cavity, _FAT)


def _paint_chest(canvas: _Canvas, chest: _Bools) -> None:
    """Paints the lungs, the heart and what lies between the lungs."""
    between = canvas.ellipsoid(center=(110.0, 15.0, 4.0), radii=(160.0, 68.0, 30.0))
    heart = canvas.ellipsoid(center=(78.0, -32.0, 18.0), radii=(52.0, 42.0, 50.0), tilt=-25.0)
    canvas.paint(chest, _LUNG + canvas.random.uniform(-40.0, 40.0), label=_LUNGS)
    vessels = _smooth_field(canvas.random, chest.shape, nodes=16)
    canvas.hounsfield[chest] += np.float32(55.0) * np.maximum(vessels[chest], 0.0)
    canvas.paint(chest & between, _FAT + 60.0)
    canvas.paint(chest & heart, canvas.enhanced(42.0, 100.0))


def _paint_gut(canvas: _Canvas, belly: _Bools) -> None:
    """Paints the stomach with its gas on top, the intestine, and the muscles of the loin."""
    stomach = canvas.ellipsoid(center=(-2.0, -32.0, 52.0), radii=(36.0, 30.0, 34.0), tilt=20.0)
    canvas.paint(belly & stomach, 25.0)
    gas = stomach & (canvas.position.back < canvas.random.uniform(-52.0, -40.0))
    canvas.paint(belly & gas, -900.0)
    for _ in range(20):
        up, back, left = canvas.random.uniform((-170.0, -62.0, -85.0), (-55.0, 5.0, 85.0))
        radius = canvas.random.uniform(13.0, 20.0)
        radii = (radius, radius, radius * 1.6)
        loop = belly & canvas.ellipsoid(center=(up, back, left), radii=radii, tilt=left)
        canvas.paint(loop, canvas.random.uniform(10.0, 60.0))
        canvas.paint(
            belly & canvas.ellipsoid(center=(up, back - 8.0, left), radii=(6.0, 5.0, 9.0)), -600.0
        )
    loins = canvas.position.up < canvas.random.uniform(-55.0, -40.0)
    for side in (-1.0, 1.0):
        canvas.paint(loins & canvas.column(back=50.0, left=36.0 * side, radius=17.0), _MUSCLE)


def _paint_organs(canvas: _Canvas, belly: _Bools) -> None:
    """Paints the labeled organs below the diaphragm."""
    right_lobe = canvas.ellipsoid(center=(-10.0, -6.0, -68.0), radii=(76.0, 66.0, 58.0), tilt=-8.0)
    left_lobe = canvas.ellipsoid(center=(2.0, -42.0, -8.0), radii=(32.0, 34.0, 58.0), tilt=15.0)
    spleen = canvas.ellipsoid(center=(-10.0, 28.0, 88.0), radii=(54.0, 42.0, 30.0), tilt=-10.0)
    canvas.paint(belly & (right_lobe | left_lobe), canvas.enhanced(55.0, 55.0), label=_LIVER)
    canvas.paint(belly & spleen, canvas.enhanced(46.0, 75.0), label=_SPLEEN)
    _paint_kidney(canvas, side=-1.0, up=-72.0, label=_RIGHT_KIDNEY)
    _paint_kidney(canvas, side=1.0, up=-62.0, label=_LEFT_KIDNEY)


def _paint_kidney(canvas: _Canvas, *, side: float, up: float, label: int) -> None:
    """Paints a kidney in its fat, with a brighter cortex and the fat of its pelvis."""
    center, tilt = (up, 40.0, 58.0 * side), -12.0 * side
    distance = canvas.distance(center=center, radii=(54.0, 27.0, 29.0), tilt=tilt)
    pelvis = canvas.ellipsoid(center=(up, 36.0, 34.0 * side), radii=(20.0, 13.0, 15.0))
    canvas.paint(distance < 1.35, _FAT)
    canvas.paint(distance < 1, canvas.enhanced(34.0, 160.0), label=label)
    canvas.paint(distance < 0.4, canvas.enhanced(32.0, 110.0), label=label)
    canvas.paint(pelvis & (distance < 1.35), _FAT + 20.0)


def _paint_vessels(canvas: _Canvas) -> None:
    """Paints the aorta and the inferior vena cava, which have no label."""
    aorta = canvas.column(back=26.0, left=12.0, radius=canvas.random.uniform(9.0, 13.0))
    cava = canvas.column(back=20.0, left=-20.0, radius=canvas.random.uniform(9.0, 13.0))
    canvas.paint(aorta, canvas.enhanced(42.0, 125.0))
    canvas.paint(cava & (canvas.position.up < 45.0), canvas.enhanced(40.0, 90.0))


def _paint_spine(canvas: _Canvas) -> None:
    """Paints the vertebrae with their discs, arches and processes."""
    height = canvas.position.up % np.float32(canvas.random.uniform(30.0, 36.0))
    radius = canvas.random.uniform(20.0, 24.0)
    for side in (-1.0, 1.0):
        canvas.paint(
            canvas.trunk(canvas.patient.fat)
            & canvas.column(back=74.0, left=27.0 * side, radius=24.0, depth=0.8),
            _MUSCLE,
        )
    body = canvas.column(back=50.0, left=0.0, radius=radius, depth=0.8)
    marrow = canvas.column(back=50.0, left=0.0, radius=radius - 5.0, depth=0.8)
    arch = canvas.column(back=74.0, left=0.0, radius=15.0)
    canal = canvas.column(back=72.0, left=0.0, radius=8.5)
    process = canvas.column(back=90.0, left=0.0, radius=5.0, depth=2.2) & (height < 20)
    density = canvas.random.uniform(130.0, 230.0)
    canvas.paint(arch | process, density + 230.0, label=_SPINE)
    canvas.paint(body, density + 200.0, label=_SPINE)
    canvas.paint(marrow, density, label=_SPINE)
    canvas.paint(body & (height < 6), 85.0, label=_SPINE)
    canvas.paint(canal & ~body, 30.0)


def _positions(
    random: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float]
) -> _Position:
    """Returns the positions after posture and a smooth random deformation."""
    up, back, left = np.meshgrid(
        *(
            (np.arange(length) - (length - 1) / 2) * step + random.uniform(-9.0, 9.0)
            for length, step in zip(shape, spacing_mm, strict=True)
        ),
        indexing="ij",
    )
    angle = np.deg2rad(random.uniform(-6.0, 6.0))
    turned_back = np.cos(angle) * back - np.sin(angle) * left
    turned_left = np.cos(angle) * left + np.sin(angle) * back
    return _Position(
        *(
            (axis + _WARP_MM * _smooth_field(random, shape)).astype(np.float32)
            for axis in (up, turned_back, turned_left)
        )
    )


def _smooth_field(random: np.random.Generator, shape: Sequence[int], *, nodes: int = 5) -> _Array:
    """Draws standard normal values at control points and interpolates them smoothly."""
    field = random.standard_normal((nodes, nodes, nodes), dtype=np.float32)
    for axis, length in enumerate(shape):
        place = np.linspace(0, nodes - 1, length)
        lower = np.minimum(place.astype(np.int64), nodes - 2)
        weight = ((1 - np.cos(np.pi * (place - lower))) / 2).astype(np.float32)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(3)])
        low, high = np.take(field, lower, axis), np.take(field, lower + 1, axis)
        field = (low + weight * (high - low)).astype(np.float32)
    return field


def _blur(volume: _Array) -> _Array:
    """Blurs as a scanner does, by about half a voxel."""
    for axis in range(3):
        padded = np.moveaxis(
            np.pad(volume, [(int(i == axis),) * 2 for i in range(3)], "edge"), axis, 0
        )
        blurred = np.float32(0.15) * (padded[:-2] + padded[2:]) + np.float32(0.7) * padded[1:-1]
        volume = np.moveaxis(blurred, 0, axis)
    return volume


def _noise(random: np.random.Generator, shape: Sequence[int]) -> _Array:
    """Draws noise that is correlated between neighbors, in HU."""
    white = random.standard_normal(tuple(shape), dtype=np.float32)
    return np.float32(random.uniform(18.0, 34.0)) * _blur(white)
