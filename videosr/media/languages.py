"""Language codes of tracks: ISO 639-2 has two codes for some languages, and QuickTime knows only some of each."""

from __future__ import annotations

# fmt: off
QUICKTIME = frozenset({
    "alb", "amh", "ara", "arm", "asm", "aym", "aze", "baq", "bel", "ben", "bul", "bur", "cat", "ces", "chi", "dan",
    "dut", "dzo", "eng", "epo", "est", "fin", "fra", "geo", "ger", "gre", "grn", "guj", "heb", "hin", "hun", "ice",
    "ind", "iri", "ita", "jav", "jpn", "kan", "kas", "kaz", "khm", "kin", "kir", "kor", "kur", "lao", "lat", "lav",
    "lit", "mac", "mal", "mar", "may", "mlg", "mlt", "mol", "mon", "nep", "nor", "nya", "ori", "orm", "per", "pol",
    "por", "pus", "que", "ron", "run", "rus", "san", "sin", "slk", "slv", "smi", "snd", "som", "spa", "sve", "swa",
    "tam", "tat", "tel", "tgk", "tgl", "tha", "tib", "tir", "tuk", "tur", "uig", "ukr", "urd", "uzb", "vie", "wel",
    "yid",
})
# fmt: on
"""The codes that FFmpeg's mov muxer can write (found by writing them all)."""

# fmt: off
_PAIRS = (
    ("alb", "sqi"), ("arm", "hye"), ("baq", "eus"), ("bur", "mya"), ("chi", "zho"), ("cze", "ces"), ("dut", "nld"),
    ("fre", "fra"), ("geo", "kat"), ("ger", "deu"), ("gre", "ell"), ("ice", "isl"), ("mac", "mkd"), ("may", "msa"),
    ("per", "fas"), ("rum", "ron"), ("slo", "slk"), ("tib", "bod"), ("wel", "cym"),
)
# fmt: on
_OTHER = {**dict(_PAIRS), **{b: a for a, b in _PAIRS}}


def same_language(a: str, b: str) -> bool:
    """Whether two codes mean the same language."""
    return a == b or _OTHER.get(a) == b


def quicktime_language(code: str) -> str | None:
    """The code that QuickTime has for a language, None if it has none."""
    return next((c for c in (code, _OTHER.get(code, "")) if c in QUICKTIME), None)
