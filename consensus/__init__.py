"""Agreeing on one log: the pure Raft core, the log on disk under it, and the links between servers."""
