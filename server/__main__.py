"""`python -m server` is the command `rewinddb`."""

from server.cli import main

if __name__ == "__main__":  # worker processes import this too
    main(prog_name="rewinddb")
