"""The log on disk: the Raft log, the write-ahead log and the backup stream are this one log."""
