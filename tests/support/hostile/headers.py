"""Tar members that no artifact has: other names, sizes and kinds, links, devices, long names, another order."""

import random
import tarfile
from io import BytesIO

import factory

from gdn_aot.artifact import tar
from hostile.containers import Original, header, members, seal
from hostile.mutate import TEXTS, change_bytes, text_of

_FIELDS = {
    "name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12),
    "kind": (156, 1), "link": (157, 100), "magic": (257, 8), "user": (265, 32), "device": (329, 8),
    "prefix": (345, 155),
}  # fmt: skip
_VALUES = (
    b"\0", b"0", b"7", b"../../canary/notes.txt\0", b"/etc/passwd\0", b"\x80" + bytes(11), b"\xff" * 12,
    b"77777777777\0",
    b"-0000000001\0", b"00000000000 ", b"blobs/../x\0", b"manifest.json\0", b"\xff\xfe", b"ustar  \0", b"A" * 100,
)  # fmt: skip
_KINDS = b"\x001234567ABDEFGIKLMNSVXgx"


def changed(original: Original, chosen: random.Random) -> bytes:
    """Return an artifact with something wrong with its members, and right checksums in their headers."""
    made = members(text_of(original.manifest), original.blobs, original.manifest["blobs"])
    if original.manifest["build"]["epoch"]:
        made = members(text_of(original.manifest), original.blobs, original.manifest["blobs"], 0)
    at = chosen.randrange(len(made))
    match chosen.randrange(9):
        case 0 | 1 | 2:
            start, length = chosen.choice([*_FIELDS.values()])
            made[at] = _with(made[at], start, chosen.choice((*_VALUES, chosen.randbytes(length)))[:length])
        case 3:
            made[at] = _with(made[at], 156, bytes([chosen.choice(_KINDS)]))
            made[at] = _with(made[at], 157, chosen.choice((b"../../../canary", b"/etc/passwd", made[0][:90])))
        case 4:
            made.insert(at, _foreign(chosen))
        case 5:
            made.insert(at, chosen.choice(made))
        case 6:
            chosen.shuffle(made)
        case 7:
            del made[at]
        case _:
            made[at] = change_bytes(made[at], chosen)
    end = chosen.choice((*[tar.END] * 6, b"", bytes(512), bytes(10240), tar.END + b"x", tar.END * 3, b"x" * 1024))
    return seal(made, end)


def _with(made: bytes, start: int, value: bytes) -> bytes:
    changed = made[:start] + value + made[start + len(value) : tar.BLOCK]
    return factory.reseal(changed) + made[tar.BLOCK :]


def _foreign(chosen: random.Random) -> bytes:
    """Return a member as other programs write it."""
    name = chosen.choice([text for text in TEXTS if text and "\ud800" not in text])
    info = tarfile.TarInfo(name.replace("\0", "?"))
    info.type = chosen.choice(
        (tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
         tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE)
    )  # fmt: skip
    info.linkname = chosen.choice(("", "../../canary", "/etc/passwd", "x" * 300))
    content = chosen.randbytes(chosen.choice((0, 1, 512, 1500)))
    info.size = len(content) if info.type == tarfile.REGTYPE else 0
    if chosen.random() < 0.3:
        info.pax_headers = {"path": "../../canary/x", "GNU.sparse.size": "1000000000000", "size": "8589934592"}
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w:", format=chosen.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as file:
        file.addfile(info, BytesIO(content))
    whole = made.getvalue().rstrip(b"\0")
    return whole + bytes(-len(whole) % tar.BLOCK) or header(name, 0)
