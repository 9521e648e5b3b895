"""Real-time video upscaling with temporal feature reuse."""

__version__ = "0.1.0"
