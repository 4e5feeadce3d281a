"""Launch keys with another value for a constexpr, against the keys that Triton computes. Runs with every version."""

from pathlib import Path
from typing import Any

import pytest
from helpers import python
from launching import STUBBED

from gdn_aot.triton_internals.relaxing import relaxed_key

_KEYS = f"""{STUBBED}
from gdn_aot.triton_internals.relaxing import constant_position, relaxed_key

def launch(constants=None, **changes):
    arguments = kernels.arguments(**{{"NAME": "it's [a], ('b'", **changes}})
    return triton_internals.Launch(kernels.every, (), {{**arguments, "num_warps": 8}}, constants)

got = {{}}
for name in ("BLOCK", "NAME", "FLAG", "KIND", "ABSENT", "RATIO"):
    position = constant_position(kernels.every, name)
    wanted = launch(**{{name: 2147483647}})
    given = launch({{name: 2147483647}})
    got[name] = {{
        "key": relaxed_key(launch().key, position, 2147483647) == wanted.key,
        "launch": given.key == wanted.key,
        "compiled": given.specialization() == wanted.specialization(),
        "argument": given.arguments[name],
    }}
refused = []
for name in ("odd", "aligned", "nowhere"):
    try:
        constant_position(kernels.every, name)
    except ValueError as error:
        refused.append(str(error))
not_constant = kernels.every.arg_names.index("odd")
print(json.dumps({{"got": got, "refused": refused, "odd": relaxed_key(launch().key, not_constant, 1),
    "beyond": relaxed_key(launch().key, 99, 1)}}))
"""


def test_a_relaxed_key_is_the_key_of_a_launch_with_that_value(tmp_path: Path) -> None:
    found: Any = python(_KEYS, home=tmp_path)
    for name, row in found["got"].items():
        assert row == {"key": True, "launch": True, "compiled": True, "argument": 2147483647}, name
    assert [text.rpartition(" ")[2] for text in found["refused"]] == ["odd", "aligned", "nowhere"]
    assert (found["odd"], found["beyond"]) == (None, None)


@pytest.mark.parametrize("key", ["", "[]", "[('i32', '')", "nothing like a key", "[('constexpr', 'open"])
def test_what_is_no_key_is_left_alone(key: str) -> None:
    assert relaxed_key(key, 0, 7) is None
