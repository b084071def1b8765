"""The shapes of the Messages API: its bodies and streams, prompts and models. Reads and rewrites JSON; asks nothing."""
