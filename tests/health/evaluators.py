"""Functions for the worker process that do what a hostile or broken evaluator might: which one, the item says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from reconciler.core.health_cel import answer


def misbehave(item: bytes) -> bytes:
    """Do what `item` says: its first word, and a number after a colon where there is one."""
    word, _, number = item.decode().partition(":")
    if word == "exit":
        os._exit(int(number))
    if word == "sleep":
        time.sleep(float(number))
    if word == "touch":  # then go on for ever: whoever waits for the file knows that it has begun
        Path(number).touch()
        word = "spin"
    if word == "spin":
        while True:
            pass
    if word == "memory":
        return str(len(bytearray(int(number)))).encode()
    if word == "output":
        return b"x" * int(number)
    if word == "print":
        print("this is no answer", flush=True)
    if word == "raise":
        raise ValueError("as it was asked to")
    if word == "environment":
        return ",".join(sorted(os.environ)).encode()
    if word == "pid":
        return str(os.getpid()).encode()
    if word == "write":
        with open(number, "w", encoding="utf-8") as file:
            file.write("x")
    if word == "cel":
        return answer(number.encode())
    return item
