"""How far the newest commit of a source is: applied everywhere, baked everywhere?

Kept per application, as each is decided, so that the answer costs what has changed and not a look at every target.

    progress.behind({"shop/orders"})                        # a commit changed it
    progress.decided("shop/orders", applied=True, baked=False, moving=True)
    progress.may_have_moved(sha)                            # is there anything to write down?
"""

from __future__ import annotations

from collections.abc import Iterable


class Progress:
    """Which applications are behind the newest commit, and what was written down of it last."""

    def __init__(self) -> None:
        self._unapplied: set[str] = set()
        self._unbaked: set[str] = set()
        self._moving: set[str] = set()
        self._applied = ""
        self._baked = ""

    def behind(self, applications: Iterable[str]) -> None:
        """Nothing is known of these any more, until they are decided."""
        names = set(applications)
        self._unapplied |= names
        self._unbaked |= names

    def decided(self, application: str, *, applied: bool, baked: bool, moving: bool) -> None:
        """The application was looked at: is what Git asks for assigned to all of its targets, and baked there, and is a
        rollout of it active? Whoever ends a rollout has the application decided again."""
        for names, done in ((self._unapplied, applied), (self._unbaked, baked), (self._moving, not moving)):
            if done:
                names.discard(application)
            else:
                names.add(application)

    def may_have_moved(self, sha: str) -> bool:
        """True if commit `sha` may be further than what was written down."""
        if self._unapplied or self._moving:
            return False
        return self._applied != sha or (self._baked != sha and not self._unbaked)

    def of(self, sha: str, last_baked: str) -> tuple[str, str]:
        """The commits last applied and last baked, when `sha` is applied and nothing of it is on its way."""
        return sha, last_baked if self._unbaked else sha

    def wrote(self, applied: str, baked: str) -> None:
        """This is what the store says now."""
        self._applied, self._baked = applied, baked
