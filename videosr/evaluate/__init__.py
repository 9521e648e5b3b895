"""Measuring upscalers against originals: image sets and video, networks and bicubic side by side."""

from videosr.evaluate.images import (
    IMAGE_SUFFIXES,
    Scores,
    SetScores,
    Upscale,
    bicubic,
    crop_to_multiple,
    evaluate,
    list_images,
    read_image,
    score,
)
from videosr.evaluate.report import markdown, to_json

__all__ = [
    "IMAGE_SUFFIXES",
    "Scores",
    "SetScores",
    "Upscale",
    "bicubic",
    "crop_to_multiple",
    "evaluate",
    "list_images",
    "markdown",
    "read_image",
    "score",
    "to_json",
]
