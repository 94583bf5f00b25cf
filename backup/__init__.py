"""Copies and time travel: RethinkDB's archives, base images, the shipped log, restores."""
