"""Bringing any picture to one fixed size, format and colour, fast rather than well."""

from __future__ import annotations

from dataclasses import replace

from av.video.reformatter import Interpolation, VideoReformatter

from videosr.frame import Frame, StreamInfo
from videosr.media.conform import Conformer, fitted, recoded
from videosr.media.planes import PlaneReader, to_av_frame


class Rescaler:
    """Resamples frames by FFmpeg's bicubic filter (`SWS_BICUBIC`); those of another shape get black beside them.

    Args:
        target: its size, format and colour are those of every result.
    """

    def __init__(self, target: StreamInfo) -> None:
        self._target = target
        self._conformer = Conformer(target)
        self._reader = PlaneReader()
        self._reformatter = VideoReformatter()

    def rescale(self, frame: Frame) -> Frame:
        """The frame as the target would have it; itself if it already is so."""
        target = self._target
        same = (frame.width, frame.height) == (target.width, target.height)
        coded = (frame.color.matrix, frame.color.range) == (target.color.matrix, target.color.range)
        shaped = same and frame.sar == target.sar
        if shaped and coded and frame.format == target.format:
            return frame
        if not shaped and fitted(frame, target) != (target.width, target.height):
            (framed,) = self._conformer.process(frame)
            return framed
        if frame.color.matrix != target.color.matrix:
            planes = recoded(frame.planes, frame, target)
            frame = replace(frame, planes=planes, format=target.format, color=target.color, sar=target.sar)
            if same:
                return frame
        picture = to_av_frame(frame.planes, frame.format, frame.color.siting)
        picture.colorspace, picture.color_range = int(frame.color.matrix), int(frame.color.range)
        made = self._reformatter.reformat(
            picture,
            width=target.width,
            height=target.height,
            format=target.format.name,
            dst_colorspace=int(target.color.matrix) if target.format.family == "yuv" else None,
            dst_color_range=int(target.color.range) if target.format.family == "yuv" else None,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )
        planes = self._reader.read(made, target.format)
        return replace(frame, planes=planes, format=target.format, color=target.color, sar=target.sar)
