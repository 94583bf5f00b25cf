"""`python -m server` is the command `rewinddb`."""

from server.cli import main

main()
