"""The real parts that B1 to B7 are measured on: an API server, simulated clusters on it, repositories, the daemon."""
