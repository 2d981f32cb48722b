"""The functional core: decides, and does nothing else.

No I/O, no clock, no randomness, no threads, no tasks, no database. Values in, values out; `now` is an argument.
Meant to be read in this order: model, problems, parse, traits, compile, order, diff, flink_effect, health, waves,
rollout, actions, decide, admit.
"""
