"""Asks: what a question may be, the client it goes through, and the ways to wait for its answer."""
