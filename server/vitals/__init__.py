"""How the server is doing: the system tables that monitors read.

    stats    connections, queries, rows and bytes, by cluster, server and table      rates    totals into rates
    jobs     what runs: queries, index construction, compaction                      logs     the newest log lines
    issues   what somebody should look after

One rule: a figure that nobody asks for costs next to nothing.
"""

from typing import Final

NAMES: Final = ("current_issues", "jobs", "logs", "stats")
