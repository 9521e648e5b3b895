"""When pictures of AVI and ASF (WMV) are shown, which the containers do not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.container import InputContainer


class PictureTimes:
    """The times of a file's pictures, one after the other, where the decoder has them wrong.

    AVI numbers its pictures as they are coded, and ASF gives those of coding; neither has times of presentation. FFmpeg
    takes the ones for the others, so those of H.264 with B-frames go to and fro. What comes out when a picture is
    decoded has the time of that one. FFmpeg's command finds as much by counting faults (`guess_correct_pts` in
    libavcodec/decode.c); here it is so from the start, wherever that is.
    """

    def __init__(self, container: InputContainer) -> None:
        self._coded = container.format.name in ("avi", "asf")
        self._last: int | None = None
        self._step = 1

    def correct(self, picture: av.VideoFrame) -> None:
        """Give the next picture its time; None where nothing was shown before it that could tell."""
        if not self._coded:
            return
        last, time = self._last, picture.dts
        if time is not None and last is not None:
            self._step = max(1, time - last)
        elif time is None and last is not None:  # the last ones come when all is decoded
            time = last + max(self._step, picture.duration)
        picture.pts = self._last = time
