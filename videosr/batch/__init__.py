"""Many files: found, compared with the record of what is done, made by worker processes, reported."""
