"""Real-time video upscaling with temporal feature reuse."""

import sys

__version__ = "0.1.0"

# `import openvino` reports itself to its makers over the network, from a forked child, and keeps an identifier in the
# user's home, unless it finds its telemetry package missing. Upscaling a video is nobody else's business.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
