"""When pictures of AVI are shown, which the container does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.container import InputContainer


class PictureTimes:
    """The times of a file's pictures, one after the other, where the decoder has them wrong.

    AVI numbers its pictures as they are coded, and has no times of presentation. FFmpeg takes the ones for the others,
    so those of H.264 with B-frames go to and fro. What comes out when a picture is decoded has the time of that one.
    FFmpeg's command finds as much by counting faults (`guess_correct_pts` in libavcodec/decode.c); here it is so from
    the start, wherever that is.
    """

    def __init__(self, container: InputContainer) -> None:
        self._coded = container.format.name == "avi"
        self._next: int | None = None

    def correct(self, picture: av.VideoFrame) -> None:
        """Give the next picture its time; None where nothing was shown before it that could tell."""
        if not self._coded:
            return
        picture.pts = picture.dts if picture.dts is not None else self._next  # the last ones come when all is decoded
        if picture.pts is not None:
            self._next = picture.pts + max(1, picture.duration)
