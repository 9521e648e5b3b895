"""What becomes of a file afterwards: it is read back and compared with its source."""
