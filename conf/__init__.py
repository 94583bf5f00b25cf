"""What a server is told before it starts: YAML files, and the frozen settings they become."""
