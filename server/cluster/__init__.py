"""This server among others: who belongs to the cluster, how servers join, what they tell each other.

    membership  this server as a member       members  members_tables   who belongs to it, and how it is changed
    door        the cluster's port            joining  join             an invitation, taken and accepted
    links       to the other servers          vitals  health  stalls    how members are
    snapshots   snapshot_files                the data of one member for another
    gate        may a query run here          servers  queries          the cluster as RethinkDB's tables show it
    plug        into a server                 ports                     what is needed of the links
    local       `make cluster`

One rule: who is a member is decided in the replicated state alone; what Raft is told follows from it.
"""
