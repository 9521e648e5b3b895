"""Files in and out: the only rooms that know PyAV."""
