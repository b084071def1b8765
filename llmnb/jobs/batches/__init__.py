"""Runs over rows as message batches: half the price, and ready within a day."""
