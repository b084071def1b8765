"""The response cache: what was asked before is answered from disk, and costs nothing."""
