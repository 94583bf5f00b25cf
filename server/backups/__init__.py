"""Backups as the server's part: vaults that the log flows into, jobs, schedules and alarms, and their tables.

    service    puts the parts together                   tables     what any driver asks and watches
    archiver   the log into every vault                  rows       what rows of those tables may say
    lane       jobs, one after the other                 ledger     what the replicated log keeps of all this
    work       verify, drill, expire, copy               schedules  what is due
    children   processes that do the heavy part          alarms     what to look after
    restore    what is needed of `server/restores`       metrics    for Prometheus        plug    into a server

One rule: nothing heavy runs in the server's process, and each step is in the log before it is told. What a child
process runs is in the room `backup/`.
"""
