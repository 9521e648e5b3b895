"""What an output does not keep of its source: found beforehand or on the way, and told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from videosr.errors import StrictError
from videosr.film import riders_of
from videosr.media.codecs import EncoderSettings, alpha_note, notes, output_info, resolve
from videosr.media.containers import container_format
from videosr.media.decoder import Decoder
from videosr.media.immersive import describable
from videosr.media.stills.images import image_losses, image_settings, picture_data_kept, without_idle_alpha
from videosr.progress import Progress
from videosr.upscaler import Upscaler


class Report:
    """Tells each loss, guess and repair once; under `--strict` a loss is an error.

    Args:
        progress: is told.
        decoder: of the source.
        kept: the side data of frames that is written.
        strict: whether `--strict` is on.
        alpha: what to say once something is transparent.
    """

    def __init__(
        self, progress: Progress, decoder: Decoder, kept: frozenset[str], strict: bool, alpha: Sequence[str] = ()
    ) -> None:
        self._progress, self._decoder, self._kept, self._strict, self._alpha = progress, decoder, kept, strict, alpha
        self.said: list[str] = []

    def losses(self, found: list[str]) -> None:
        """Tell these losses, those that the decoder has met so far, and the decoder's warnings.

        Raises:
            StrictError: there is a loss that was not told before, and `--strict` is on.
        """
        found = [*found, *(f"{what} cannot be kept" for what in self._decoder.losses(self._kept))]
        if self._decoder.transparent:
            found += self._alpha
        new = [line for line in found if line not in self.said]
        if self._strict and new:
            raise StrictError(f"{self._decoder.name}: --strict forbids what would not be kept: {'; '.join(new)}")
        self.warnings([*new, *self._decoder.warnings])

    def warnings(self, found: list[str]) -> None:
        """Tell each line that is new."""
        for line in found:
            if line not in self.said:
                self.said.append(line)
                self._progress.warning(line)


def picture_losses(source: Path, suffix: str) -> list[str]:
    """What would be lost of the picture, enlarged twice, by the default encoder for such an output: a line for each.

    Args:
        source: what PyAV can read; its first frame is decoded.
        suffix: of the output, "mkv" or "png" say.

    Raises:
        VideosrError: `source` has no picture, or there are no such outputs.
    """
    output = Path(f"output.{suffix.removeprefix('.').lower()}")
    container = container_format(output)
    with Decoder(source) as decoder:
        info = decoder.info
        if container == "image":
            frame = without_idle_alpha(next(iter(decoder)))
            info = replace(info, format=frame.format)
            settings = image_settings(output.suffix, EncoderSettings(), info)
            found, kept = image_losses(output.suffix, settings, info), picture_data_kept(settings, frame.side_data)
        else:
            doubled = replace(info, width=2 * info.width, height=2 * info.height)
            settings = resolve(EncoderSettings(), doubled, container, hdr=decoder.hdr)
            found = [*notes(settings, info, decoder.hdr), *alpha_note(settings, info)]
            riders = riders_of(decoder, settings, output_info(settings, doubled), container)
            kept = riders.kinds | written_of(decoder, container).keys()
        return [*found, *(f"{what} cannot be kept" for what in decoder.losses(kept))]


def written_of(decoder: Decoder, container: str) -> dict[str, bytes]:
    """What can be written into a film of views and surroundings."""
    return describable(decoder.views, container, turned=decoder.info.rotation != 0)


def not_finite(upscaler: Upscaler) -> list[str]:
    """What became of frames for which the network gave NaN or infinity."""
    counts = ((upscaler.mended, "computed again in f32"), (upscaler.replaced, "interpolated"))
    return [f"the network gave NaN or infinity for {n} frame{'s' * (n > 1)}: {how}" for n, how in counts if n]
