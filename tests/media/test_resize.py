from fractions import Fraction

import numpy as np
import pytest

from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting, StreamInfo
from videosr.media.resize import Resizer

FORMAT = PixelFormat.parse("yuv420p10le")


def waves(width, height, siting):
    """Planes with the same waves across and down at any size, sampled where each sample sits."""
    across, down = {Siting.LEFT: (0.5, 1), Siting.CENTER: (1, 1), Siting.TOPLEFT: (0.5, 0.5)}[siting]
    x, y = (2 * np.arange(width // 2) + across) / width, (2 * np.arange(height // 2) + down) / height
    chroma = 512 + 150 * (np.sin(6 * np.pi * x)[None] + np.sin(6 * np.pi * y)[:, None])
    luma = np.tile(512 + 300 * np.sin(6 * np.pi * (np.arange(width) + 0.5) / width), (height, 1))
    return tuple(np.rint(plane).astype(np.uint16) for plane in (luma, chroma, chroma))


@pytest.mark.parametrize("siting", [Siting.LEFT, Siting.CENTER, Siting.TOPLEFT])
@pytest.mark.parametrize("size", [(128, 64), (192, 96), (384, 192)])
def test_nothing_moves(siting, size):
    color = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=siting)
    info = StreamInfo(width=256, height=128, format=FORMAT, time_base=Fraction(1, 25), rate=Fraction(25), color=color)
    planes = waves(256, 128, siting)
    frame = Frame(planes=planes, format=FORMAT, color=color, pts=0, duration=1, time_base=info.time_base)
    (made,) = Resizer(info, *size).process(frame)
    for plane, wanted in zip(made.planes, waves(*size, siting), strict=True):
        inner = tuple(slice(n // 8, -n // 8) for n in plane.shape)  # at the rim there is nothing to interpolate from
        assert np.abs(plane.astype(int) - wanted)[inner].max() <= 5
