"""Colour in float64 after the standards, written without a look at videosr's own: ITU-T H.273, BT.601, 709, 2020.

The picture is affine in its place: R'G'B'(u, v) = a + b u + c v with u, v from 0 to 1 over the picture. Any sound
interpolation keeps such a picture, so what every sample of an enlargement must be follows from where it sits, and a
wrong matrix, range, siting or depth shows as an error in code values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Luma coefficients (K_R, K_B) by H.273 matrix coefficients code point: BT.709-6 item 3.2, BT.601-7 item 2.5.1 (625 and
# 525 lines have the same), BT.2020-2 table 4 (non-constant luminance).
COEFFICIENTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
LIMITED, FULL = 1, 2
LEFT, CENTER, TOPLEFT = 1, 2, 3

ORIGIN = np.array([0.90, 0.10, 0.12])
ACROSS = np.array([-0.76, 0.06, 0.72])
DOWN = np.array([-0.04, 0.70, 0.04])
"""R', G' and B' of the picture: `ORIGIN + ACROSS * u + DOWN * v`; strong colours everywhere."""
MIX = np.array([[0.15, 0.10, 0.75], [0.10, 0.80, 0.10], [0.70, 0.10, 0.20]])
"""What the test network makes of (R', G', B'): it mixes them, so that a wrong matrix does not undo itself."""


@dataclass(frozen=True)
class Coding:
    """How a picture is coded: H.273 code points, bits a sample, chroma subsampling (1 or 2 an axis)."""

    matrix: int
    range: int
    bits: int
    across: int
    down: int
    siting: int
    gray: bool = False
    alpha: bool = False


def ycc_from_rgb(matrix: int) -> NDArray[np.float64]:
    """H.273 8.3, equations 38 to 40 of E'Y, E'PB, E'PR: rows Y', Cb, Cr."""
    kr, kb = COEFFICIENTS[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    blue = (np.array([0.0, 0.0, 1.0]) - luma) / (2 * (1 - kb))
    red = (np.array([1.0, 0.0, 0.0]) - luma) / (2 * (1 - kr))
    return np.stack([luma, blue, red])


def code(value: NDArray[np.float64], plane: int, coding: Coding) -> NDArray[np.float64]:
    """Codes, not rounded, of Y' in [0, 1] or of Cb, Cr in [-1/2, 1/2]: H.273 8.3, equations 25 to 30."""
    if coding.range == LIMITED:
        factor = 2 ** (coding.bits - 8)
        return factor * (219 * value + 16) if plane == 0 else factor * (224 * value + 128)
    peak = 2**coding.bits - 1
    return peak * value if plane == 0 else peak * value + 2 ** (coding.bits - 1)


def places(size: int, factor: int, offset: float) -> NDArray[np.float64]:
    """Where, from 0 to 1, the samples of an axis lie: every `factor`-th luma sample, moved by `offset` of those."""
    count = -(-size // factor)
    return (np.arange(count) * factor + offset + 0.5) / size


def picture(
    coding: Coding, height: int, width: int, mix: NDArray[np.float64] | None = None
) -> list[NDArray[np.float64]]:
    """The planes of the picture at a size, in codes that are not rounded; `mix` is applied to its R'G'B' before."""
    planes = []
    for plane in range(1 if coding.gray else 3):
        across, down = (coding.across, coding.down) if plane else (1, 1)
        u = places(width, across, 0.5 if across == 2 and plane and coding.siting == CENTER else 0.0)
        v = places(height, down, 0.5 if down == 2 and plane and coding.siting != TOPLEFT else 0.0)
        rgb = ORIGIN + ACROSS * u[None, :, None] + DOWN * v[:, None, None]
        if coding.gray:  # all three are luma
            rgb = np.repeat((rgb @ ycc_from_rgb(coding.matrix)[0])[..., None], 3, axis=-1)
        if mix is not None:
            rgb = rgb @ mix.T
        planes.append(code(rgb @ ycc_from_rgb(coding.matrix)[plane], plane, coding))
    if coding.alpha:
        u, v = places(width, 1, 0.0), places(height, 1, 0.0)
        planes.append((2**coding.bits - 1) * (0.1 + 0.5 * u[None, :] + 0.3 * v[:, None]))
    return planes


def tolerance(coding: Coding) -> float:
    """The most, in codes, that rounding alone can make of the mixed picture's samples.

    Half a code of the input in every component, through the matrices and interpolation (Catmull-Rom's taps add up to
    1.25 in absolute value an axis), and half a code of the output.
    """
    forward = ycc_from_rgb(coding.matrix)
    scale = np.array([1.0, 1.0, 1.0]) if coding.range == FULL else np.array([219, 224, 224]) / 224
    chain = scale[:, None] * (forward @ MIX @ np.linalg.inv(forward)) / scale[None, :]
    taps = np.array([1.0, 1.25 ** (coding.across - 1), 1.25 ** (coding.down - 1)])
    worst = float((np.abs(chain) @ np.array([1.0, taps[1] * taps[2], taps[1] * taps[2]])).max())
    return 0.5 + 0.5 * max(1.25**2 if coding.alpha else 0.0, worst) + 0.02 * 2 ** (coding.bits - 8) / 4
