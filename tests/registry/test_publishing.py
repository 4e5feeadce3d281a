"""Publishing while others do so, or the network fails: nothing is lost, and publishing again completes it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loopback import Cut, LoopbackHub, Refuse
from making import TARGETS, expected, make
from registries import branches, listed, send, uploads

from gdn_aot.artifact.archive import Written
from gdn_aot.errors import ConflictError, NetworkError, RegistryError, StaleParentError
from gdn_aot.registry.base import Addition, Registry
from gdn_aot.registry.remote import RemoteRegistry

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's way to send a file


ON_THE_HUB = pytest.mark.parametrize("either", ["hub"], indirect=True)
STEPS = [("directory", "v1"), ("directory", "v1.0.0"), ("hub", "v1"), ("hub", "v1.0.0"), ("hub", "main")]


class Meddled:
    """A registry in which something happens once, just before a commit to a branch or a tag, or before the first."""

    def __init__(self, registry: Registry, meanwhile: Callable[[], object], before: str = "") -> None:
        self.registry, self.meanwhile, self.before = registry, [meanwhile], before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)

    def _once(self, what: str) -> None:
        if self.meanwhile and self.before in ("", what):
            self.meanwhile.pop()()

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        self._once(branch)
        return self.registry.commit(branch, parent, additions, message)

    def tag(self, name: str, commit: str) -> None:
        self._once(name)
        self.registry.tag(name, commit)


def test_somebody_else_is_faster(hub: LoopbackHub, either: Registry, tmp_path: Path) -> None:
    """At either branch: the index is read again and merged, and neither loses anything. Nothing is sent twice."""
    made = [make(tmp_path, "sm_70", build=9)]
    send(either, *made)
    for number, branch in enumerate(branches(either)):
        mine, theirs = (make(tmp_path, TARGETS[1 + 2 * number + side], build=9) for side in (0, 1))
        meddled = Meddled(either, partial(send, either, theirs), branch)
        send(meddled, mine, tag=f"v1.0.{number}")
        assert not meddled.meanwhile
        made += [mine, theirs]
        for revision in branches(either):
            assert listed(either, revision) == expected(*made)
        assert expected(mine).items() <= listed(either, f"v1.0.{number}").items()
    if isinstance(either, RemoteRegistry):
        assert sorted(uploads(hub)) == sorted(one.sha256 for one in made)
        assert 412 in [record.status for record in hub.requests("POST", "/commit/v1$")]


def test_somebody_else_tags_later(either: Registry, sm_120: Written, sm_90: Written) -> None:
    """What a tag names is what was committed for it, also if the branch has moved on since."""
    send(Meddled(either, partial(send, either, sm_90), "v1.0.0"), sm_120, tag="v1.0.0")
    assert listed(either, "v1.0.0") == expected(sm_120)
    assert listed(either) == expected(sm_120, sm_90)


def test_somebody_else_publishes_the_same_identifier(
    either: Registry, sm_90: Written, sm_120: Written, tmp_path: Path
) -> None:
    theirs = make(tmp_path, build=1)
    result = send(Meddled(either, partial(send, either, sm_90)), sm_90)
    assert [item.action for item in result.plan.items] == ["unchanged"]
    with pytest.raises(ConflictError):
        send(Meddled(either, partial(send, either, theirs)), sm_120)
    assert listed(either) == expected(sm_90, theirs)


def test_always_too_late(either: Registry, sm_120: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> str:
        raise StaleParentError("too late")

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(either, "commit", stale)
    with pytest.raises(StaleParentError):
        send(either, sm_120)


@pytest.mark.parametrize(("either", "step"), STEPS, indirect=["either"])
def test_cut_off_between_the_steps(either: Registry, sm_120: Written, step: str) -> None:
    def cut() -> None:
        raise NetworkError("cut off")

    start = either.refs().branches
    with pytest.raises(NetworkError):
        send(Meddled(either, cut, step), sm_120, tag="v1.0.0")
    refs = either.refs()
    assert (refs.branches == start, "v1.0.0" in refs.tags) == (step == "v1", step == "main")
    send(either, sm_120, tag="v1.0.0")
    for revision in (*branches(either), "v1.0.0"):
        assert listed(either, revision) == expected(sm_120)


@ON_THE_HUB
@pytest.mark.parametrize("where", ["/commit/v1$", "/commit/main$", "/tag/", "/branch/"])
def test_lost_answers(hub: LoopbackHub, either: Registry, tmp_path: Path, where: str) -> None:
    """The Hub did what it was asked for, and the answer never came: publishing again completes what is missing."""
    made = make(tmp_path, build=sum(map(ord, where)))
    struck = hub.fault("POST", where, Cut())
    with suppress(RegistryError):
        send(either, made, tag="v1.0.0")
    assert struck.struck
    hub.faults.clear()
    send(either, made, tag="v1.0.0")
    for revision in (*branches(either), "v1.0.0"):
        assert listed(either, revision) == expected(made)
    assert uploads(hub) == [made.sha256]
    before = either.refs()
    send(either, made, tag="v1.0.0")
    assert either.refs() == before


@ON_THE_HUB
def test_an_upload_that_fails_at_first(hub: LoopbackHub, either: Registry, tmp_path: Path) -> None:
    made = make(tmp_path, build=11)
    hub.fault("PUT", "/storage/", Refuse(503))
    hub.fault("POST", "/preupload/", Refuse(429, headers={"Retry-After": "0"}))
    send(either, made)
    assert [record.status for record in hub.requests("PUT")] == [503, 200]
    assert listed(either) == expected(made)
