"""`python -m llmnb` is the command `llmnb`."""

from llmnb.commands.main import main

main()
