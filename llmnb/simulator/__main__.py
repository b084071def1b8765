"""`python -m llmnb.simulator`: a simulator in a process of its own, until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from llmnb.simulator.limits import Limits
from llmnb.simulator.server import Simulator


def main() -> None:
    """Start it, print its address on one line, and serve."""
    parser = argparse.ArgumentParser(prog="python -m llmnb.simulator", description="A simulated Messages API.")
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--seed", type=int, default=0, help="fixes every answer (default: 0)")
    parser.add_argument("--tokens-per-second", type=float, default=None, help="pace of the answers (default: at once)")
    parser.add_argument("--limits", type=int, default=1, metavar="TIMES", help="rate limits so many times as high")
    given = parser.parse_args()
    simulator = Simulator(
        seed=given.seed,
        port=given.port,
        tokens_per_second=given.tokens_per_second,
        limits=Limits().times(given.limits),
        keep=10_000,
    )
    with suppress(KeyboardInterrupt), simulator:  # whoever reads the address may press Ctrl-C before it is served
        sys.stdout.write(f"{simulator.url}\n")
        sys.stdout.flush()
        simulator.serve_forever()


if __name__ == "__main__":
    main()
