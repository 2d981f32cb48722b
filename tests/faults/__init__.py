"""Faults on the way to a real API server: a proxy that plays them, and what the shipped parts make of them."""
