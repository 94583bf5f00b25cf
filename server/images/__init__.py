"""Images: by which member they are taken, and how the leader and that member work together.

    work     the jobs of the table `backups`       choice    which member is to take one
    places   here, or on another member            messages  what the two say to each other
    orders   what an ordered member does           taking    a checkpoint, and a child process per vault
    plug     into a server

One rule: an image that the leader has lost sight of is never called successful.
"""
