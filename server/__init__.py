"""The process: command line, daemon, and the one place that plugs all rooms together."""

VERSION = "0.1.0"
