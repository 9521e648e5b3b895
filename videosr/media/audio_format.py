"""Layouts of sound: what files say of them, and what is said in their place."""

from __future__ import annotations

import av


def known_layout(layout: av.AudioLayout) -> av.AudioLayout:
    """The layout; the usual one of as many channels where a file (AVI, WMA, PCM in MKV) says only how many there are.

    It stays as it is where there is no usual one.
    """
    if not layout.name.endswith(" channels"):
        return layout
    try:
        return av.AudioLayout(f"{layout.nb_channels}c")
    except ValueError:
        return layout
