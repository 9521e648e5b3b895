"""Live: one stream in, upscaled within a latency budget, to any number of outputs.

    reader -> [queue] -> upscale -> [queue] -> deliver -> encoder -> [queue] -> output
                                                  |                  [queue] -> output
                                                  +-> page's copy of the source

Each arrow in brackets is a bounded queue between two threads. A source that has its own clock (network, device, paced
file) never waits: what would come too late is dropped and counted. One without (a file into a pipe) is held back
instead, and nothing is dropped.
"""
