"""Whether two small pictures show the same, one of them perhaps slightly cropped or brightened.

A perceptual hash says which pairs may be copies, and errs on photos of one scene. Here one picture is laid over the
other (scale and shift on each axis, by Gauss-Newton: Lucas and Kanade, 1981), and then compared in colour and block by
block. All functions take batches: arrays of shape (pairs, SIDE, SIDE, 3), 0 to 255.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

SIDE = 48
# Different photos of one product or one hand reach 0.96, copies at half the size or cropped by a tenth mostly 0.975 and
# above (docs/experiments.md).
LEAST_CORRELATION = 0.97
# In standard deviations, of the worst of 8 x 8 blocks: photos of one scene with another object in it differ in a place.
GREATEST_DIFFERENCE = 0.5
_MOST_MOVED = 0.2
_BLOCKS = 8
_AXIS = ((np.arange(SIDE) - (SIDE - 1) / 2) / (SIDE / 2)).astype(np.float32)
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def are_copies(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Say for each pair whether both show the same picture."""
    first_pixels, second_pixels = first.astype(np.float32), second.astype(np.float32)
    still = np.zeros((len(first), 4), np.float32)
    same = _match(first_pixels, second_pixels, still)
    rest = np.flatnonzero(~same)
    if rest.size:
        moved = _aligned(first_pixels[rest] @ _LUMINANCE, second_pixels[rest] @ _LUMINANCE)
        same[rest] = _match(first_pixels[rest], second_pixels[rest], moved)
    return same


def _aligned(first: Array, second: Array) -> Array:
    """Return the scale and shift, of rows and then of columns, that lay the second picture over the first."""
    moved = np.zeros((len(first), 4), np.float32)
    # Coarse first, so that a shift of several pixels is found.
    for sigma, steps in ((2.5, 6), (1.0, 4)):
        target, source = _standardised(_blurred(first, sigma)), _standardised(_blurred(second, sigma))
        for _ in range(steps):
            moved = np.clip(moved + _step(target, source, moved), -_MOST_MOVED, _MOST_MOVED)
    return moved


def _step(target: Array, source: Array, moved: Array) -> Array:
    """Return one Gauss-Newton step, with brightness and contrast fitted along."""
    rows, columns, inside = _samplers(moved)
    warped = rows @ source @ columns.transpose(0, 2, 1)
    by_row, by_column = (slope * (SIDE / 2) for slope in np.gradient(warped, axis=(1, 2)))
    parts = [by_row * _AXIS[:, None], by_row, by_column * _AXIS, by_column, warped, np.ones_like(warped)]
    jacobian = (np.stack(parts, axis=-1) * inside[..., None]).reshape(len(target), -1, len(parts))
    residual = ((target - warped) * inside).reshape(len(target), -1, 1)
    transposed = jacobian.transpose(0, 2, 1)
    damping = 0.05 * np.eye(len(parts), dtype=np.float32)
    step: Array = np.linalg.solve(transposed @ jacobian + damping, transposed @ residual)[:, :4, 0]
    return step


def _match(first: Array, second: Array, moved: Array) -> npt.NDArray[np.bool_]:
    """Compare the second picture, moved, with the first, where they overlap."""
    rows, columns, inside = _samplers(moved)
    mask = inside[:, None]
    warped = rows[:, None] @ second.transpose(0, 3, 1, 2) @ columns.transpose(0, 2, 1)[:, None]
    one, other = (_standardised_where(pixels, mask) for pixels in (first.transpose(0, 3, 1, 2), warped))
    count = 3 * inside.sum((1, 2))
    correlation = (one * other).sum((1, 2, 3)) / count
    width = SIDE // _BLOCKS
    shape = (len(first), -1, _BLOCKS, width, _BLOCKS, width)
    difference = np.abs(one - other).reshape(shape).sum((1, 3, 5))
    # Blocks that hardly overlap say little.
    pixels = 3 * (inside.reshape(shape).sum((1, 3, 5)) + width)
    same: npt.NDArray[np.bool_] = correlation >= LEAST_CORRELATION
    return same & ((difference / pixels).max((1, 2)) <= GREATEST_DIFFERENCE)


def _samplers(moved: Array) -> tuple[Array, Array, Array]:
    """Return matrices that sample rows and columns bilinearly, and where both lie within the picture (0 or 1)."""
    matrices, within = [], []
    for scale, shift in ((moved[:, 0], moved[:, 1]), (moved[:, 2], moved[:, 3])):
        place = ((1 + scale)[:, None] * _AXIS + shift[:, None]) * (SIDE / 2) + (SIDE - 1) / 2
        matrices.append(np.maximum(0, 1 - np.abs(place[:, :, None] - np.arange(SIDE, dtype=np.float32))))
        within.append((place >= -1e-3) & (place <= SIDE - 1 + 1e-3))
    inside = (within[0][:, :, None] & within[1][:, None, :]).astype(np.float32)
    return matrices[0], matrices[1], inside


def _blurred(pictures: Array, sigma: float) -> Array:
    place = np.arange(SIDE)
    kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    blurred: Array = kernel @ pictures @ kernel.T
    return blurred


def _standardised(pictures: Array) -> Array:
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    standardised: Array = centred / (centred.std((1, 2), keepdims=True) + 1e-6)
    return standardised


def _standardised_where(pictures: Array, mask: Array) -> Array:
    """Standardise all channels together, so that another colour is another picture; 0 outside the mask."""
    count = 3 * mask.sum((1, 2, 3), keepdims=True)
    centred = (pictures - (pictures * mask).sum((1, 2, 3), keepdims=True) / count) * mask
    standardised: Array = centred / np.sqrt((centred**2).sum((1, 2, 3), keepdims=True) / count + 1e-6)
    return standardised
