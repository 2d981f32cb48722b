"""Benchmarks: what the service costs, as ratios measured in one run. See README.md beside this file."""
