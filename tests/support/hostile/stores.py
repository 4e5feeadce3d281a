"""A store that a disk, a hand or somebody else has changed; then the loader, the commands and an installation."""

import contextlib
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.errors import GdnAotError
from gdn_aot.serving.find import find
from gdn_aot.store.index import BLOB, FIXED, ROW, digest
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.upkeep import audit
from gdn_aot.store.whole import UNREADABLE
from hostile.containers import Original
from hostile.judging import WrongError, command
from hostile.mutate import change_bytes, change_json, odd, text_of
from hostile.places import Place
from hostile.planting import plant, spoil

Served = dict[tuple[str, str], tuple[str, bytes]]
"""(kernel, launch key) -> (what is said of the binary, its code)."""
_FORMATS = (
    b"", b"2\n", b"3\n", b"99999999\n", b"1 ", b"-1", b"1.0", b"\xff\xfe", b"one", b"0", b"9" * 5000, b"1\n1\n", b"\0",
    "\u0661".encode(), b"1" + b" " * 100_000, b"01\n", b"+1",
)  # fmt: skip


def prepare(folder: Path, artifact: Path) -> None:
    """Write a store with one artifact and where it is from."""
    from gdn_aot.store.origins import Origin

    install(
        Store(str(folder / "stored")),
        open_artifact(artifact),
        Origin(repo="hf://org/a", revision="v1", commit="c" * 40),
    )


def wanted(original: Original) -> Served:
    """Return what a loader should say and hand out of an artifact."""
    found: Served = {}
    for kernel in original.expanded["kernels"]:
        for binary in kernel["binaries"]:
            parts = {name: held for name, held in binary.items() if name in _SAID}
            code = original.blobs[binary["cubin"]]
            found[f"{kernel['module']}:{kernel['qualname']}", binary["launch_key"]] = (
                json.dumps(parts, sort_keys=True),
                code,
            )
    return found


_SAID = ("signature", "constants", "attributes", "options", "metadata")


def served(stored: StoredArtifact, names: Served) -> Served:
    """Return what one artifact hands out; nothing of what it says is damaged."""
    found: Served = {}
    for kernel, key in names:
        try:
            stored.index.choices(kernel)
            record = stored.index.binary(kernel, key)
            if record is not None:
                said = json.dumps({**record.specialization, "metadata": record.metadata}, sort_keys=True)
                found[kernel, key] = said, stored.read_blob(record.cubin)
        except UNREADABLE:
            continue
        except RecursionError:
            continue
    return found


def case(place: Place, template: Path, chosen: random.Random, artifact: Path, names: Served) -> str:
    """Change a store, and look at all that reads it."""
    shutil.copytree(template / "stored", place.home, symlinks=True, dirs_exist_ok=True)
    (there,) = (place.home / "store/artifacts").iterdir()
    forged = chosen.choice(_CHANGES)(place, there, chosen)
    home = str(place.home)
    _right(find(home, None)[0], names, forged=forged, all_of_it=False)
    if chosen.random() < 0.5:
        for words in chosen.sample(_COMMANDS, 2):
            command(place, *words)
    found, verdicts = find(home, str(artifact))
    if not found and not forged:  # an index of ours that is right says what fits
        reasons = [verdict.reason for verdict in verdicts]
        raise WrongError("not served", f"a file in hand is not served with this store: {reasons!a}"[:600])
    _right(found, names, forged=forged, all_of_it=False)  # a damaged bit is found where it is read
    command(place, "cache", "verify", "--repair")
    try:
        install(Store(home), open_artifact(artifact))
    except GdnAotError as error:
        if error.exit_code not in (5, 9):
            raise WrongError("traceback", f"{error!r}"[:500]) from error
        return "left alone"
    if problems := audit(Store(home)).problems:
        raise WrongError("different", f"installed again, and not whole: {problems[0]!s}"[:500])
    _right(find(home, None)[0], names, forged=forged, all_of_it=not forged)
    return "forged" if forged else "mended"


def _right(found: list[StoredArtifact], names: Served, *, forged: bool, all_of_it: bool) -> None:
    """Check that what is served is what it should be; of a store with right digests only that nothing breaks."""
    for stored in found:
        got = served(stored, names)
        wrong = [key for key, held in got.items() if held != names[key]]
        if wrong and not forged:
            raise WrongError("different", f"a wrong binary is served: {wrong[0]!a}"[:300])
        if all_of_it and got.keys() != names.keys():
            raise WrongError("not served", f"{len(names) - len(got)} binaries are missing")
    if all_of_it and not found:
        raise WrongError("not served", "nothing is found")


def _damage(place: Place, there: Path, chosen: random.Random) -> bool:
    """Change bytes of one file."""
    path = chosen.choice([*sorted(there.iterdir()), there / "index", there / "index", there / "pack"])
    spoil(path, place, chosen) if chosen.random() < 0.1 else path.write_bytes(change_bytes(path.read_bytes(), chosen))
    return path.name == "origin.json"


def _format(place: Place, there: Path, chosen: random.Random) -> bool:
    (place.home / "store/format").write_bytes(chosen.choice(_FORMATS))
    return False


def _plant(place: Place, there: Path, chosen: random.Random) -> bool:
    """Put something else where a file or a folder of the store is."""
    store = place.home / "store"
    names = ("format", ".lock", "artifacts", "CACHEDIR.TAG", "packs", "artifacts/.tmp-00", ".tmp-00", "locks", "tmp")
    own = [there / name for name in ("index", "pack", "manifest.json.zst", "origin.json", ".tmp-1")]
    path = chosen.choice([*(store / name for name in names), *own, *own, there, store / "artifacts/x-0000000000000000"])
    kind = plant(path, place, chosen)
    if chosen.random() < 0.3:
        (store / "format").unlink(missing_ok=True) if not (store / "format").is_dir() else None
        if not os.path.lexists(store / "format") and chosen.random() < 0.5:
            (store / "format").write_bytes(chosen.choice((b"0\n", b"1\n", b"2\n")))
    return kind == "missing" and path == there


def _origin(place: Place, there: Path, chosen: random.Random) -> bool:
    spoil(there / "origin.json", place, chosen)
    return False


def _name(place: Place, there: Path, chosen: random.Random) -> bool:
    """Directories of artifacts that are called otherwise, or there many times, or of other times."""
    names = (
        "x",
        "a" * 255,
        "..a",
        "a\nb",
        "\udcff",
        "\x1b[2J",
        f"{there.name}x",
        f"fla-{'0' * 16}",
        "-rf",
        " ",
        "index",
    )
    other = there.parent / chosen.choice(names)
    drawn = chosen.random()
    if drawn < 0.4:
        there.rename(other)
    elif drawn < 0.8:
        shutil.copytree(there, other)
    times = chosen.choice((-(2**33), 0, -4_000_000_000, 2**33, 2**40))
    with contextlib.suppress(OSError):
        os.utime(other if other.exists() else there, (times, times))
    return False


def _manifest(place: Place, there: Path, chosen: random.Random) -> bool:
    """The manifest of the store, compressed anew."""
    path = there / "manifest.json.zst"
    text = zstandard.ZstdDecompressor().decompress(path.read_bytes())
    new = chosen.choice((change_bytes(text, chosen), text_of(change_json(json.loads(text), chosen)), b"[" * 10_000_000))
    settings: dict[str, Any] = {"write_content_size": chosen.random() < 0.7, "write_checksum": chosen.random() < 0.7}
    path.write_bytes(zstandard.ZstdCompressor(level=1, **settings).compress(new))
    return False


def _forge(place: Place, there: Path, chosen: random.Random) -> bool:
    """An index that says other things, with right digests."""
    path = there / "index"
    path.write_bytes(_forged(path.read_bytes(), chosen))
    return True


def taken_apart(data: bytes) -> tuple[bytes, Any, dict[bytes, bytes]]:
    """Return magic, header and records of an index."""
    magic, size, count, *_ = FIXED.unpack_from(data)
    header = json.loads(data[FIXED.size : FIXED.size + size])
    start = FIXED.size + size
    base = start + count * ROW.size
    records = {
        name: data[base + offset : base + offset + length]
        for name, offset, length, _ in ROW.iter_unpack(data[start:base])
    }
    return magic, header, records


def with_header(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """Return an index with another header, a value or bytes, and right digests."""
    magic, header, records = taken_apart(data)
    new = change(header)
    return together(magic, new if isinstance(new, bytes) else text_of(new).strip(), records)


def together(magic: bytes, said: bytes, records: dict[bytes, bytes]) -> bytes:
    """Return the index of a header and records, with right digests."""
    rows, offset = [], 0
    for name, record in sorted(records.items()):
        rows.append(ROW.pack(name, offset, len(record), digest(record)))
        offset += len(record)
    table = b"".join(rows)
    fixed = FIXED.pack(magic, len(said), len(rows), hashlib.sha256(said).digest(), hashlib.sha256(table).digest())
    return fixed + said + table + b"".join(record for _, record in sorted(records.items()))


def _forged(data: bytes, chosen: random.Random) -> bytes:
    magic, header, records = taken_apart(data)
    match chosen.randrange(8):
        case 0 | 1:
            header = change_json(header, chosen, chosen.choice((1, 1, 2)))
        case 2:
            header = chosen.choice(
                ([], {}, 3, None, "x", [header], {**header, "modules": [f"m{number}" for number in range(20_000)]},
                 {**header, "modules": "os"}, {**header, "models": 3}, {**header, "capability": []}, odd(chosen))
            )  # fmt: skip
        case 3:
            for name in chosen.sample([*records], min(3, len(records))):
                del records[name]
        case 4:
            name = chosen.choice([*records])
            records[name] = chosen.choice(
                (b"null", b"[]", b"{}", b"", b"[" * 100_000, b"1", b"\xff", records[name] * 2)
            )
        case 5:
            name = chosen.choice([*records])
            records[name] = _places(records[name], chosen)
        case _:
            name = chosen.choice([*records])
            try:
                value = json.loads(records[name])
            except ValueError:
                records[name] = _places(records[name], chosen)
            else:
                records[name] = text_of(change_json(value, chosen, chosen.choice((1, 2))))
    return _written(magic, header, records, chosen)


def _places(record: bytes, chosen: random.Random) -> bytes:
    """Change where blobs are said to be."""
    if not record or len(record) % BLOB.size:
        return change_bytes(record, chosen)
    rows = [*BLOB.iter_unpack(record)]
    at = chosen.randrange(len(rows))
    number = chosen.choice((0, 1, 2**31, 2**63, 2**64 - 1, 1 << 40))
    rows[at] = chosen.choice(((rows[at][0], number, rows[at][2]), (rows[at][0], rows[at][1], number)))
    return b"".join(BLOB.pack(*row) for row in rows)


def _written(magic: bytes, header: Any, records: dict[bytes, bytes], chosen: random.Random) -> bytes:
    """Return the index; now and then its table leads beyond its end, or counts wrong."""
    data = together(magic, text_of(header).strip() if chosen.random() < 0.95 else b"[" * 200_000, records)
    _, size, count, said, _ = FIXED.unpack_from(data)
    start = FIXED.size + size
    table, rest = data[start : start + count * ROW.size], data[start + count * ROW.size :]
    if count and chosen.random() < 0.05:
        name, _, length, kept = ROW.unpack(table[: ROW.size])
        far = ROW.pack(name, chosen.choice((2**31, 2**32 - 1)), chosen.choice((length, 2**32 - 1)), kept)
        table = far + table[ROW.size :]
    stated = count if chosen.random() < 0.95 else chosen.choice((0, 2**32 - 1, count + 1))
    fixed = FIXED.pack(magic, size, stated, said, hashlib.sha256(table).digest())
    return fixed + data[FIXED.size : start] + table + rest


_CHANGES: tuple[Callable[[Place, Path, random.Random], bool], ...] = (
    _damage, _damage, _damage, _damage, _format, _plant, _plant, _plant, _origin, _name, _manifest, _forge,
    _forge, _forge,
)  # fmt: skip
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("cache", "ls"), ("cache", "ls", "--json"), ("cache", "verify"), ("cache", "prune"), ("cache", "verify", "--json"),
    ("cache", "prune", "--keep", "0"), ("cache", "rm", "fla*"), ("doctor",), ("doctor", "--json", "--deep"),
    ("cache", "prune", "--dry-run"), ("cache", "rm", "*", "--dry-run"),
)  # fmt: skip
