"""What a driver talks to: the wire, the sessions, the fibers that run queries, and ReQL itself (reql/)."""
