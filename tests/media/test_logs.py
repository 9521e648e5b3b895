"""Capturing FFmpeg's log."""

import av.logging

from videosr.media.logs import captured


def said(level: int = av.logging.ERROR, **options: bool) -> list[str]:
    with captured(level, **options) as logs:
        av.logging.log(av.logging.ERROR, "x264", "wrong")
        av.logging.log(av.logging.ERROR, "x264", "wrong")
        av.logging.log(av.logging.WARNING, "x264", "odd")
    return [message for _, name, message in logs if name == "x264"]


def test_messages_come_as_often_as_they_are_said_whatever_was_said_before() -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    assert said() == ["wrong", "wrong"]
    assert said(av.logging.WARNING, local=False) == ["wrong", "wrong", "odd"]
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def test_repeats_from_before_are_told_to_nobody() -> None:
    """PyAV holds them back until another message comes."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        for _ in range(2):
            av.logging.log(av.logging.ERROR, "cuda", "no library")
        with captured(av.logging.ERROR) as logs:
            av.logging.log(av.logging.ERROR, "x264", "wrong")
        assert logs == [(av.logging.ERROR, "x264", "wrong")]
    finally:
        av.logging.set_level(level)
