"""Tools that run in this process: what they are made of, how a turn's calls are run, and what is kept of them."""
