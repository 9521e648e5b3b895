"""Many files: found, compared with what is done, made by worker processes, and told of."""
