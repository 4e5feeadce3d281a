"""What becomes of a hostile artifact: verified, inspected, opened, installed, found by the loader, audited."""

from collections.abc import Callable
from pathlib import Path

from helpers import Done, gdn_aot

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.errors import GdnAotError, NotWritableError
from gdn_aot.serving.find import find
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import audit
from hostile import artifacts
from hostile.containers import Original, expand
from hostile.harm import harms
from hostile.places import Place
from hostile.reading import Members, differences, served_differences
from hostile.trials import METER, Case, Outcome

CODES = {0, 2, 3, 4, 5, 6, 7, 8, 9}
"""Exit codes that are meant."""


class WrongError(Exception):
    """Something that must not be: its first argument is the kind of fault, the second what it is."""


def attacker(seed: int, sound: list[Original]) -> Callable[[Path], Case]:
    """Return what makes in a folder what runs a case by its number."""

    def make(folder: Path) -> Case:
        place = Place(folder)
        place.settle_in()

        def case(number: int) -> Outcome:
            kind, chosen = artifacts.draw(seed, number)
            original, data = artifacts.make(kind, chosen, sound)
            return tried(place, number, kind, lambda: judge(place, data, original))

        return case

    return make


def tried(place: Place, number: int, kind: str, attack: Callable[[], str]) -> Outcome:
    """Return what became of a case: the verdict of an attack in a clean place, or what must not be."""
    place.clean()
    fault, detail, verdict = "", "", ""
    try:
        verdict = attack()
    except WrongError as wrong:
        fault, detail = wrong.args
    touched = place.touched()
    if touched and not fault:
        fault, detail = "touched", f"touched: {touched[:5]!a}"
    return Outcome(number=number, kind=kind, verdict=verdict, fault=fault, detail=detail)


def command(place: Place, *args: object) -> Done:
    """Run a command here, which has to end with a code that is meant and without a traceback."""
    before = place.cwd
    variables = {"GDN_AOT_HOME": str(place.home)}
    try:
        done = gdn_aot(*args, home=before, extra=variables, code=None)
    except AssertionError as error:
        raise WrongError("traceback", f"{args[:3]!a}: {str(error)[-1000:]}") from error
    if done.code not in CODES:
        raise WrongError("traceback", f"{args[:3]!a} ended with {done.code}: {done.err[-1000:]}")
    return done


def judge(place: Place, data: bytes, original: Original) -> str:
    """Return what was decided about an artifact.

    Raises:
        WrongError: Something came out that must not.
    """
    file = place.files / "gdn-aot-hostile.tar.zst"
    file.write_bytes(data)
    with METER:
        codes = [command(place, *words, file).code for words in (("verify",), ("inspect", "--json"), ("inspect",))]
        artifact = _opened(file)
    if codes not in ([0] * 3, [5] * 3) or (codes[0] == 0) != (artifact is not None):
        raise WrongError("disagree", f"verify, inspect, inspect: {codes}; opened: {artifact is not None}")
    with METER:
        found, verdicts = find(str(place.home), str(file))
    store = Store(str(place.home))
    if artifact is None:
        if found or store.artifacts():
            raise WrongError("different", "refused by verify, and taken by the loader or in the store")
        return "refused"
    if data == original.data:
        return "unchanged"
    for what in differences(data, artifact):
        raise WrongError("different", what)
    members = Members(data)
    for what in harms(members, expand(members.manifest)):
        raise WrongError("harmful", what)
    if not verdicts:
        raise WrongError("disagree", "the loader says nothing of it")
    _install(place, store, artifact, data)
    return "accepted"


def _opened(file: Path) -> Artifact | None:
    try:
        artifact = open_artifact(file)
    except GdnAotError:
        artifact = None
    try:
        lazy = open_artifact(file, lazy=True)
        blobs = dict(lazy.iter_blobs())
    except GdnAotError:
        if artifact is not None:
            raise WrongError("disagree", "refused where it is opened lazily") from None
        return None
    if artifact is None or blobs != dict(artifact.iter_blobs()):
        raise WrongError("disagree", "accepted where it is opened lazily, or with other blobs")
    return artifact


def _install(place: Place, store: Store, artifact: Artifact, data: bytes) -> None:
    try:
        with METER:
            there = install(store, artifact).place
            problems = audit(store).problems
    except NotWritableError as error:
        raise WrongError("not installed", f"sound for verify: {error.message[:300]!a}") from error
    if problems:
        raise WrongError("different", f"what was installed is not whole: {str(problems[0])[:500]!a}")
    for what in served_differences(data, there):
        raise WrongError("different", what)
    command(place, "cache", "ls")
