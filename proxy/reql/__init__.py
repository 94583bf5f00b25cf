"""ReQL: compiles a query's term tree and runs it against the ports in `env`. One rule: pure, no I/O of its own."""
