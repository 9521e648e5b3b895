"""Live streams in and out."""
