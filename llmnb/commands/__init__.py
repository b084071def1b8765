"""The shell command `llmnb`, one file for each group of its commands."""
