"""The imperative shell: owns I/O, time and tasks, and decides nothing that the core could decide."""
