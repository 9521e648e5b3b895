"""`python -m videosr`."""

from videosr.cli import main

main()
