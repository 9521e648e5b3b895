"""Pictures that are named by their numbers, `scan/%05d.png`: a film in as many files, in the way of FFmpeg's image2."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Self

from videosr.errors import InputError

RATE = Fraction(24)
"""Pictures a second where nobody says: film's."""
_NUMBER = re.compile(r"%0?(\d?)d")
_DIGITS = 9
"""Of a number at most: FFmpeg counts in 32 bits."""


@dataclass(frozen=True)
class Numbered:
    """A pattern of names, the files of which may be there or not.

    Attributes:
        path: the pattern; its last part has one `%d`, or `%05d` for numbers of at least five digits.
    """

    path: Path

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Self | None:
        """The pattern that a path is; None if it is an address, has no number or several, or is the name of a file."""
        file = Path(path)
        if "://" in os.fspath(path) or len(_NUMBER.findall(file.name)) != 1:
            return None
        there = os.path.exists(path)  # noqa: PTH110 (of a name that is too long Path raises)
        return None if there else cls(file)

    @property
    def _parts(self) -> tuple[str, str, str]:
        """The name before the number, the number's form, and the name behind it."""
        before, form, after = _NUMBER.split(self.path.name)
        return before, form, after

    def files(self) -> list[Path]:
        """The pictures' files, in order. Raises InputError as `numbers` does."""
        return [self.name(number) for number in self.numbers]

    def name(self, number: int) -> Path:
        """The file of a picture."""
        return self.path.with_name(self._name(number))

    def _name(self, number: int) -> str:
        before, digits, after = self._parts
        return f"{before}{number:0{digits or 1}d}{after}"

    def at(self, index: int) -> Path:
        """The file of a picture by its place among those that are there, from 0 on."""
        return self.name(self.numbers[0] + index)

    def there(self) -> list[int]:
        """The numbers of the pictures that are there, in order.

        Raises:
            OSError: the folder cannot be looked into.
        """
        before, digits, after = self._parts
        form = re.compile(rf"{re.escape(before)}(\d{{1,{_DIGITS}}}){re.escape(after)}", re.ASCII | re.DOTALL)
        entries = (form.fullmatch(entry) for entry in os.listdir(self.path.parent))  # noqa: PTH208 (names are enough)
        found = (match[1] for match in entries if match)
        return sorted(int(number) for number in found if f"{int(number):0{digits or 1}d}" == number)

    @cached_property
    def numbers(self) -> range:
        """The numbers of the pictures that are there, without a gap.

        Raises:
            InputError: there are none, or one is missing.
        """
        try:
            found = self.there()
        except OSError as exc:
            raise InputError(f"{self.path.parent}: cannot be looked into: {exc.strerror}; check the path") from exc
        if not found:
            raise InputError(f"{self.path}: no file of that name, nor are there pictures numbered like that")
        numbers = range(found[0], found[0] + len(found))
        if found[-1] != numbers[-1]:
            gap = next(number for number, there in zip(numbers, found, strict=True) if number != there)
            raise InputError(
                f"{self.name(gap)}: is missing: numbered pictures begin at {self.name(found[0]).name} and go on to "
                f"{self.name(found[-1]).name}; put it there, or the pictures behind the gap into a folder of their own"
            )
        return numbers

    def check_sizes(self) -> int:
        """See that there is something in each file: FFmpeg takes an empty one for the end of the film.

        Returns:
            A number that is another one once a file has changed.

        Raises:
            InputError: one is empty or cannot be looked at, or as `numbers` does.
        """
        folder, state = f"{self.path.parent}{os.sep}", 0
        for number in self.numbers:
            try:  # with a name, for of films there are many: a `Path` costs more than to look at the file
                seen = os.stat(folder + self._name(number))  # noqa: PTH116
            except OSError as exc:
                raise InputError(f"{self.name(number)}: cannot be read: {exc.strerror}; make or copy it again") from exc
            if seen.st_size == 0:
                raise InputError(f"{self.name(number)}: is empty (0 bytes); make or copy it again")
            state = hash((state, seen.st_size, seen.st_mtime_ns, seen.st_ino))
        return state

    @property
    def ffmpegs_name(self) -> str:
        """The pattern as FFmpeg has to be told, to which every other percent sign is one too."""
        before, digits, after = (part.replace("%", "%%") for part in self._parts)
        return f"{self.path.parent}{os.sep}".replace("%", "%%") + f"{before}%0{digits or 1}d{after}"
