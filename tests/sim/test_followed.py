"""Which kinds a cluster's targets consist of, kept up as they come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import Target
from reconciler.shell.follow import Kind
from reconciler.shell.followed import Followed

KINDS = [Kind("v1", "ConfigMap"), Kind("v1", "Service"), Kind("a.b/v1", "Job"), Kind("a.b/v2", "Job")]
TARGETS = [Target(f"fleet/app{number}", "c0") for number in range(3)]
SETS = st.frozensets(st.sampled_from(KINDS), max_size=3)


def _anew(of_target: dict[Target, tuple[frozenset[Kind], frozenset[Kind]]]) -> set[Kind]:
    declared = {kind for kinds, _ in of_target.values() for kind in kinds}
    groups = {kind.group_kind for kind in declared}
    return declared | {kind for _, kinds in of_target.values() for kind in kinds if kind.group_kind not in groups}


@given(st.lists(st.tuples(st.sampled_from(TARGETS), SETS, SETS), max_size=20))
def test_it_is_what_counting_anew_gives(steps: list[tuple[Target, frozenset[Kind], frozenset[Kind]]]) -> None:
    followed, of_target = Followed(), dict[Target, tuple[frozenset[Kind], frozenset[Kind]]]()
    for target, declared, owned in steps:
        followed.put(target, declared, owned)
        of_target[target] = (declared, owned)
        assert followed.kinds() == _anew(of_target)
        assert followed.declared(target) == tuple(sorted({kind.group_kind for kind in declared}))


def test_what_an_older_release_left_is_followed_at_its_version_unless_a_release_declares_the_kind() -> None:
    followed = Followed()
    followed.put(TARGETS[0], owned={Kind("a.b/v1", "Job")})
    assert followed.kinds() == {Kind("a.b/v1", "Job")}
    followed.put(TARGETS[1], declared={Kind("a.b/v2", "Job")})
    assert followed.kinds() == {Kind("a.b/v2", "Job")}
    followed.put(TARGETS[1])
    assert followed.kinds() == {Kind("a.b/v1", "Job")}
    assert followed.declared(TARGETS[1]) == ()
