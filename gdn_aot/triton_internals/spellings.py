"""Launch keys that differ in how the options of a launch were written down, not in what is launched.

Compiled code calls a kernel otherwise than the provider does: PyTorch's Dynamo wraps it in an autotuner of one
configuration, which passes every option along, default or not (torch/_higher_order_ops/triton_kernel_wrap.py).

What is relied on beyond the list in the package:

* a launch key ends with the text of the options that the launch was called with, in the order of the call
* ``backend.parse_options`` of all options makes what Triton compiles with, defaults filled in
"""

from __future__ import annotations

import ast

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_OPTIONS = "]{"


def options_text(key: str) -> str:
    """Return the text of the options in a launch key, or nothing if it is not as known."""
    head, mark, rest = key.rpartition(_OPTIONS)
    return f"{{{rest}" if head and mark else ""


def respelled_keys(backend: Any, key: str, texts: Iterable[str]) -> list[str]:
    """Return the launch keys of the same launch whose options are written as one of ``texts``, other than ``key``.

    Options are the same if the installed Triton's ``backend`` parses them to the same: those that are left out are
    what its own class of options says they are by default on the backend's target.
    """
    asked = options_text(key)
    meant = _meaning(backend, asked) if asked else None
    if meant is None:
        return []
    head = key[: -len(asked)]
    return [head + text for text in texts if text != asked and _meaning(backend, text) == meant]


def _meaning(backend: Any, text: str) -> tuple[object, ...] | None:
    """Return what options come to, or None if they are not as known or Triton refuses them."""
    try:
        given = dict(ast.literal_eval(text))
        parsed = vars(backend.parse_options(dict(given)))  # which may change what it is given
    except Exception:  # noqa: BLE001 - of whatever kind Triton says it with
        return None
    foreign = {name: value for name, value in given.items() if name not in parsed}
    return sorted((name, repr(value)) for name, value in parsed.items()), sorted(map(repr, foreign.items()))
