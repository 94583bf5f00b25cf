"""What the command `rewinddb` does beside serving: one module per family of verbs.

    backup  vault  restore  past  members      the verbs
    catalog     what vaults hold, for people and scripts
    jobs        asks a server for a job and follows it
    output      flags, lines and exit codes that they have in common

One rule: here is what people and scripts see; what a verb does is in `backup/`, or asked of a server over its port.
"""
