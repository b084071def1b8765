"""What llmnb costs, as ratios against the raw SDK measured in the same run: `python -m benchmarks`."""
