"""Deliberate bugs in the engine, to see whether the simulator finds them.

A checker that never fails proves nothing. Each mutant is one small change of the source, made as the module is loaded
in a process of its own; the simulator's seeds must then find a violation, or a story that does not end.

    python -m tests.sim.mutants                       # all of them, with the seed and the finding that killed each
    python -m tests.sim.mutants skip-bake             # one
"""
