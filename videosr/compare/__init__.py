"""Two films, or pictures, side by side: scenes of both, how they differ, and what was measured."""
