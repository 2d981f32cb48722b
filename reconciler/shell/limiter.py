"""Write limits: token buckets on the policy clock, asked before each request and never waited in.

A lane that gets no token goes on with something else and is woken when there is one, so that a unit which waits for its
turn is not a busy one. Of many that wait each is told another moment: a thousand lanes do not race for every token.

    limiter = Limiter(per_second=10, burst=10)
    limiter.take(now.monotonic)        # None: go; else Now.monotonic of the next token
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Limiter:
    """`per_second` tokens a second, at most `burst` saved up; a whole one can always be saved up."""

    per_second: float
    burst: float
    _tokens: float = field(init=False)
    _at_s: float = field(init=False, default=0.0)
    _promised_s: float = field(init=False, default=0.0)  # the last moment that somebody was told

    def __post_init__(self) -> None:
        self.burst = max(self.burst, 1.0)
        self._tokens = self.burst

    def take(self, now_s: float, *, promise: bool = True) -> float | None:
        """Take a token and return None, or return Now.monotonic of the moment there will be one for who asks now.
        Without `promise` nothing is kept free for them: who goes on with something else holds nobody up."""
        self._tokens = min(self.burst, self._tokens + max(now_s - self._at_s, 0.0) * self.per_second)
        self._at_s = max(now_s, self._at_s)
        # A token that is almost whole is whole: the moment returned below must not be too early by a rounding error.
        if self._tokens >= 1.0 - 1e-6:
            self._tokens -= 1.0
            return None
        next_s = now_s + (1.0 - self._tokens) / self.per_second
        if not promise:
            return next_s
        self._promised_s = max(next_s, self._promised_s + 1.0 / self.per_second)
        return self._promised_s

    def give_back(self) -> None:
        """The token that was taken last was not used."""
        self._tokens = min(self.burst, self._tokens + 1.0)


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """The bucket of one cluster and the one that all clusters share."""

    cluster: Limiter
    fleet: Limiter

    def take(self, now_s: float, *, promise: bool = True) -> float | None:
        """None if the write may go now, else when to ask again."""
        wait = self.cluster.take(now_s, promise=promise)
        if wait is not None:
            return wait
        wait = self.fleet.take(now_s, promise=promise)
        if wait is not None:
            self.cluster.give_back()
        return wait
