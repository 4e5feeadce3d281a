"""Which constexprs of a kernel are relaxed in this process, so that one binary serves every value of them.

Three kinds, each bound to the kernel's source, whose digest is in the manifest:

* one that the kernel's code does not use: its name is read nowhere in it, and the front end makes the same IR of it
  with several values
* one that the provider wants to be an argument, if it is nothing but a factor of products and a side of comparisons
  that decide on no branch, which mean the same with an argument, and the front end takes the kernel so
* one that the provider declares, for the texts that were read for it
"""

from __future__ import annotations

import ast
import hashlib
from typing import TYPE_CHECKING, Any, cast

from gdn_aot import triton_internals
from gdn_aot.launches import Relaxed
from gdn_aot.triton_internals import relaxing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gdn_aot.launches import Json
    from gdn_aot.providers.workload import Relaxation

    Specialized = dict[str, Json]

UNUSED = 1
"""What a kernel is compiled with for a constexpr that it does not use."""
_OTHERS = (16, 4099)
"""Values that IR is compared for besides: one that is divisible, and a large prime."""


class Relaxer:
    """Answers for each kernel which constants it is compiled with whatever a call has.

    ``declared`` is what the provider says of single kernels; ``arguments`` has the names of its constexprs that are to
    be arguments in every kernel, with the reason.
    """

    def __init__(self, declared: Iterable[Relaxation] = (), arguments: Mapping[str, str] | None = None) -> None:
        self._declared = tuple(declared)
        self._arguments = dict(arguments or {})
        self._known: dict[int, tuple[Any, tuple[Relaxed, ...]]] = {}
        self._takes: dict[str, bool] = {}
        """Whether the front end takes a launch with an argument in place of a constant."""

    @classmethod
    def of(cls, module: Any) -> Relaxer:
        """Return one for a provider's module."""
        return cls(getattr(module, "RELAXATIONS", ()), getattr(module, "ARGUMENTS", None))

    def constants(self, jit: Any, specialization: Callable[[], Specialized]) -> dict[str, int | None]:
        """Return constexpr -> value that a launch is compiled with, or None if it is an argument.

        ``specialization`` gives that of the launch, if it is needed. What is relaxed of a kernel is found out with the
        first one; of a later one for which the front end does not take an argument it stays a constant.
        """
        if id(jit) not in self._known:
            self._known[id(jit)] = jit, tuple(self._found(jit, specialization()))
        found = self._known[id(jit)][1]
        made = specialization() if any(one.value is None for one in found) else {}
        return {
            one.argument: one.value for one in found if one.value is not None or self._is_taken(jit, made, one.argument)
        }

    def _is_taken(self, jit: Any, specialization: Specialized, argument: str) -> bool:
        changed = _with(specialization, argument, relaxing.constant_position(jit, argument), None)
        key = f"{id(jit)} {changed}"
        if key not in self._takes:
            self._takes[key] = _ir(jit, changed) is not None
        return self._takes[key]

    def declared(self, jit: Any, tuner: Any = None) -> tuple[Relaxed, ...]:
        """Return what is relaxed of a kernel that `constants` knows, as a trace and a manifest keep it."""
        keys = list(tuner.keys) if tuner is not None else []
        found = self._known[id(jit)][1] if id(jit) in self._known else ()
        return tuple(
            Relaxed(one.argument, one.value, one.reason, keys.index(one.argument) if one.argument in keys else None)
            for one in found
        )

    def relax(self, jit: Any, key: str, specialization: Specialized) -> tuple[str, Specialized]:
        """Return the launch key and the specialization of a recorded launch, with the values that stand for all.

        Raises:
            ValueError: The key is not as known.
        """
        first = specialization
        for argument, value in self.constants(jit, lambda: first).items():
            position = relaxing.constant_position(jit, argument)
            relaxed = relaxing.relaxed_key(key, position, value)
            if relaxed is None:
                raise ValueError(f"the launch key {key} has no constant at {position}")
            if relaxed != key:
                key, specialization = relaxed, _with(specialization, argument, position, value)
        return key, specialization

    def _found(self, jit: Any, specialization: Specialized) -> Iterator[Relaxed]:
        name = triton_internals.kernel_name(jit)
        mine = [relaxation for relaxation in self._declared if relaxation.kernel == name]
        text = triton_internals.source_text(jit) if mine else None
        digest = hashlib.sha256(text.encode()).hexdigest() if text is not None else ""
        for relaxation in mine:
            if digest in relaxation.sources:
                yield Relaxed(relaxation.argument, relaxation.value, relaxation.reason)
        declared = {relaxation.argument for relaxation in mine}
        tree = jit.parse()
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for argument, position, value in _integers(jit, specialization):
            if argument in declared:
                continue
            if argument not in read and _same_ir(jit, specialization, argument, position, value):
                reason = "the kernel does not use it: the front end's IR is the same with other values"
                yield Relaxed(argument, UNUSED, reason)
            elif (
                argument in self._arguments
                and _is_operand(tree, argument)
                and self._is_taken(jit, specialization, argument)
            ):
                yield Relaxed(argument, None, self._arguments[argument])


def _integers(jit: Any, specialization: Specialized) -> Iterator[tuple[str, int, int]]:
    """Yield (name, position, value) of the constexprs of a launch that are integers."""
    names = list(cast("dict[str, Json]", specialization["signature"]))
    for path, value in cast("list[tuple[list[int], Json]]", specialization["constants"]):
        if len(path) == 1 and type(value) is int and jit.params[path[0]].is_constexpr:
            yield names[path[0]], path[0], value


def _is_operand(tree: ast.AST, name: str) -> bool:
    """Say whether a name is read as a factor of products and a side of comparisons alone, none of them in a branch."""
    nodes = list(ast.walk(tree))
    tests = [node.test for node in nodes if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert))]
    deciding = {id(node) for test in tests for node in ast.walk(test)}
    sides = {
        id(side)
        for node in nodes
        for side in (
            (node.left, node.right)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
            else (node.left, *node.comparators)
            if isinstance(node, ast.Compare) and id(node) not in deciding
            else ()
        )
    }
    reads = [node for node in nodes if isinstance(node, ast.Name) and node.id == name]
    return all(id(node) in sides for node in reads)


def _same_ir(jit: Any, specialization: Specialized, argument: str, position: int, value: int) -> bool:
    values = dict.fromkeys((value, UNUSED, *_OTHERS))
    texts = {_ir(jit, _with(specialization, argument, position, other)) for other in values}
    return len(texts) == 1 and None not in texts


def _ir(jit: Any, specialization: Specialized) -> str | None:
    """Return the front end's IR, or None if it refuses the kernel."""
    source = triton_internals.make_source(jit, specialization)
    options = cast("dict[str, Json]", specialization["options"])
    try:
        return triton_internals.source_ir(source, options, triton_internals.current_architecture())
    except triton_internals.front_end_errors():
        return None


def _with(specialization: Specialized, argument: str, position: int, value: int | None) -> Specialized:
    """Return a specialization with another value of a constexpr, or with it as an argument."""
    constants = cast("list[list[Json]]", specialization["constants"])
    if value is not None:
        changed: list[Json] = [[path, value if path == [position] else old] for path, old in constants]
        return {**specialization, "constants": changed}
    signature = {**cast("dict[str, Json]", specialization["signature"]), argument: relaxing.RUN_TIME}
    kept: list[Json] = [[path, old] for path, old in constants if path != [position]]
    return {**specialization, "signature": signature, "constants": kept}
