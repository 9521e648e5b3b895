"""Matroska's own elements, for what FFmpeg does not carry."""
