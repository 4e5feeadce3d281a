"""The import hook notices modules, and changes nothing of what Python does with finders, loaders and modules."""

import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.resources
import importlib.util
import inspect
import pickle
import pkgutil
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gdn_aot._hooks import ImportHook

NAME = "gdn_aot_hooked"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to import from; the import system is as before afterwards."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]
    sys.path_importer_cache.pop(str(tmp_path), None)


@pytest.fixture
def write(folder: Path) -> Callable[[str], None]:
    def write(text: str) -> None:
        (folder / f"{NAME}.py").write_text(text)
        importlib.invalidate_caches()

    return write


@pytest.fixture
def hooked(write: Callable[[str], None]) -> tuple[ImportHook, list[Any]]:
    """A hook that waits for a module of one line, and what its callback saw in it."""
    write("VALUE = 1\n")
    hook, seen = ImportHook(), []
    hook.after_import(NAME, lambda name: seen.append(getattr(sys.modules[name], "VALUE", None)))
    return hook, seen


def only_after(hook: ImportHook, finder: object) -> None:
    sys.meta_path.insert(next(at for at, one in enumerate(sys.meta_path) if one is hook) + 1, finder)


class Counting(importlib.abc.MetaPathFinder):
    """Finds nothing, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, _path: Any, _target: Any = None) -> None:
        self.asked.append(name)


class Fixed(importlib.abc.MetaPathFinder):
    """Finds the module with a loader of its own."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def find_spec(self, name: str, _path: Any, _target: Any = None) -> Any:
        if name == NAME:
            return importlib.machinery.ModuleSpec(name, self.loader)
        return None


# Finders


class Old:
    """Of the old kind: without ``find_spec``."""

    def __init__(self, loader: Any = None) -> None:
        self.loader = loader

    def find_module(self, name: str, _path: Any = None) -> Any:
        return self.loader if name == NAME else None


class OldLoading:
    """Of the old kind: creates and runs a module in one call."""

    def load_module(self, name: str) -> ModuleType:
        module = sys.modules[name] = ModuleType(name)
        module.VALUE = 2  # type: ignore[attr-defined]
        return module


@pytest.mark.filterwarnings("ignore::ImportWarning")
@pytest.mark.parametrize("before", [True, False])
def test_a_finder_of_the_old_kind_that_finds_nothing(hooked: Any, before: bool) -> None:
    hook, seen = hooked
    sys.meta_path.insert(0, Old()) if before else only_after(hook, Old())  # type: ignore[arg-type]
    importlib.import_module(NAME)
    assert seen == [1]


@pytest.mark.filterwarnings("ignore::ImportWarning")
def test_a_finder_of_the_old_kind_is_asked_where_python_asks_it(hooked: Any) -> None:
    hook, seen = hooked
    only_after(hook, Old(OldLoading()))
    module = importlib.import_module(NAME)
    assert (2 if sys.version_info < (3, 12) else 1) == module.VALUE
    assert seen == [module.VALUE]
    assert not type(module.__spec__.loader).__module__.startswith("gdn_aot")


def test_no_finder_is_asked_twice(hooked: Any) -> None:
    hook, seen = hooked
    before, after = Counting(), Counting()
    sys.meta_path.insert(0, before)
    only_after(hook, after)
    importlib.import_module(NAME)
    assert (before.asked.count(NAME), after.asked.count(NAME), seen) == (1, 1, [1])


def test_a_finder_that_raises(hooked: Any) -> None:
    hook, seen = hooked

    class Raising(Counting):
        def find_spec(self, name: str, _path: Any, _target: Any = None) -> None:
            if name == NAME:
                raise LookupError("mine")

    only_after(hook, Raising())
    with pytest.raises(LookupError, match="mine"):
        importlib.import_module(NAME)
    assert seen == []


def test_a_finder_that_asks_all_finders(hooked: Any) -> None:
    """As of wrapt and OpenTelemetry: the module is found once, and called back once."""
    hook, seen = hooked

    class Asking(Counting):
        def find_spec(self, name: str, _path: Any, _target: Any = None) -> Any:
            if name == NAME and not self.asked:
                self.asked.append(name)
                return importlib.util.find_spec(name)
            return None

    only_after(hook, Asking())
    importlib.import_module(NAME)
    assert seen == [1]


@pytest.mark.parametrize("again", [0, 1])
def test_two_hooks(hooked: Any, again: int) -> None:
    _, seen = hooked
    other = ImportHook()
    other.after_import(NAME, lambda _: seen.append("other"))
    sys.meta_path.insert(0, sys.meta_path.pop(again))
    module = importlib.import_module(NAME)
    assert sorted(map(str, seen)) == ["1", "other"]
    assert type(module.__spec__.loader) is importlib.machinery.SourceFileLoader  # type: ignore[union-attr]
    assert module.__loader__ is module.__spec__.loader  # type: ignore[union-attr]


def test_a_hook_that_is_removed_by_what_it_calls(write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Python walks along the finders meanwhile: none may be passed over."""
    write("")
    importlib.import_module(NAME)
    hook, after = ImportHook(), Counting()
    monkeypatch.setattr(sys.modules[NAME].__spec__, "_initializing", True, raising=False)
    hook.after_import(NAME, lambda _: hook.remove())
    sys.modules[NAME].__spec__._initializing = False  # type: ignore[union-attr]
    only_after(hook, after)
    assert importlib.util.find_spec("gdn_aot_no_such_module") is None
    assert after.asked == ["gdn_aot_no_such_module"]


def test_a_removed_hook_calls_nothing(hooked: Any, write: Callable[[str], None]) -> None:
    hook, seen = hooked
    sys.modules["gdn_aot_hook_under_test"] = hook  # type: ignore[assignment]
    write("import sys; sys.modules.pop('gdn_aot_hook_under_test').remove(); VALUE = 3")
    assert importlib.import_module(NAME).VALUE == 3
    assert seen == []


def test_all_who_wait_for_a_module_are_called_in_turn(hooked: Any) -> None:
    hook, seen = hooked
    for _ in range(2):
        hook.after_import(NAME, seen.append)
    importlib.import_module(NAME)
    assert seen == [1, NAME]


# Loaders and modules


def test_a_namespace(hooked: Any, folder: Path) -> None:
    _, seen = hooked
    (folder / f"{NAME}.py").unlink()
    (folder / NAME).mkdir()
    importlib.invalidate_caches()
    assert list(importlib.import_module(NAME).__path__) == [str(folder / NAME)]
    assert seen == []


def test_a_loader_without_create_module_is_refused_by_python(hooked: Any) -> None:
    hook, _ = hooked

    class Executing:
        def exec_module(self, _module: ModuleType) -> None:
            raise AssertionError

    only_after(hook, Fixed(Executing()))
    with pytest.raises(ImportError, match="must also define create_module"):
        importlib.import_module(NAME)


@pytest.mark.filterwarnings("ignore::ImportWarning")
def test_a_loader_with_load_module_alone(hooked: Any) -> None:
    hook, seen = hooked
    loader = OldLoading()
    only_after(hook, Fixed(loader))
    module = importlib.import_module(NAME)
    assert seen == [2]
    assert module.__spec__.loader is loader  # type: ignore[union-attr]


def test_a_body_that_fails(hooked: Any, write: Callable[[str], None]) -> None:
    _, seen = hooked
    write("raise KeyError('mine')")
    with pytest.raises(KeyError, match="mine"):
        importlib.import_module(NAME)
    assert seen == []
    write("VALUE = 4444")
    importlib.import_module(NAME)
    assert seen == [4444]


@pytest.mark.parametrize("body", ["__name__ = 'other'", "del __spec__, __loader__", "__spec__ = None"])
def test_a_body_that_changes_what_the_module_says_of_itself(
    hooked: Any, write: Callable[[str], None], body: str
) -> None:
    _, seen = hooked
    write(f"VALUE = 5\n{body}\n")
    importlib.import_module(NAME)
    assert seen == [5]


def test_a_module_that_replaces_itself(hooked: Any, write: Callable[[str], None]) -> None:
    _, seen = hooked
    write("import sys, types\nsys.modules[__name__] = types.SimpleNamespace(VALUE=6)\n")
    assert importlib.import_module(NAME).VALUE == 6
    assert seen == [6]


def test_a_module_is_reloaded(hooked: Any, write: Callable[[str], None]) -> None:
    _, seen = hooked
    module = importlib.import_module(NAME)
    write("VALUE = 7777\n")
    assert importlib.reload(module) is module
    assert seen == [1, 7777]


def lazily() -> ModuleType:
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def test_a_lazy_module(hooked: Any) -> None:
    _, seen = hooked
    module = lazily()
    assert seen == []
    assert module.VALUE == 1
    assert seen == [1]


def test_a_lazy_module_of_a_finder_stays_lazy(hooked: Any) -> None:
    hook, seen = hooked

    class Lazy(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, _target: Any = None) -> Any:
            spec = importlib.machinery.PathFinder.find_spec(name, path) if name == NAME else None
            if spec is not None:
                spec.loader = importlib.util.LazyLoader(spec.loader)  # type: ignore[arg-type]
            return spec

    only_after(hook, Lazy())
    module = importlib.import_module(NAME)
    assert seen == []
    assert module.VALUE == 1
    assert seen == [1]
    assert type(module.__spec__.loader) is importlib.machinery.SourceFileLoader  # type: ignore[union-attr]


def test_a_lazy_module_that_was_there_before(write: Callable[[str], None]) -> None:
    write("VALUE = 8\n")
    module, hook, seen = lazily(), ImportHook(), []

    def notice(name: str) -> None:
        seen.append(sys.modules[name].VALUE)

    for _ in range(2):
        hook.after_import(NAME, notice)
    assert seen == []
    assert module.VALUE == 8
    assert seen == [8]


@pytest.mark.parametrize("place", [None, "half"])
def test_what_is_not_imported_is_not_called_for(
    write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    """A name that ``sys.modules`` blocks, and a module whose import failed while it was waited for."""
    hook, seen = ImportHook(), []
    write("import sys\nsys.modules['gdn_aot_hook_under_test'].after_import(__name__, print)\nraise OSError")
    if place is None:
        monkeypatch.setitem(sys.modules, NAME, None)  # type: ignore[arg-type]
    else:
        monkeypatch.setitem(sys.modules, "gdn_aot_hook_under_test", hook)  # type: ignore[arg-type]
        with pytest.raises(OSError):  # noqa: PT011 - that of the module
            importlib.import_module(NAME)
    hook.after_import(NAME, seen.append)
    assert importlib.util.find_spec("gdn_aot_no_such_module") is None
    assert seen == []


def test_a_loader_that_was_not_asked_yet_is_as_the_one_within(hooked: Any, folder: Path) -> None:
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    loader: Any = spec.loader
    assert "VALUE = 1" in loader.get_source(NAME)
    assert loader.is_package(NAME) is False
    assert loader.get_filename(NAME) == loader.path == str(folder / f"{NAME}.py")
    copies = copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))  # noqa: S301
    assert {type(one) for one in copies} == {importlib.machinery.SourceFileLoader}
    assert not hasattr(loader, "no_such_attribute")
    with pytest.raises(AttributeError):
        type(loader).__new__(type(loader)).path  # noqa: B018 - as half of a copy
    assert runpy.run_module(NAME)["VALUE"] == 1


def test_resources_of_a_package(hooked: Any, folder: Path) -> None:
    """Also while its body runs."""
    _, seen = hooked
    (folder / f"{NAME}.py").unlink()
    (folder / NAME).mkdir()
    (folder / NAME / "data").write_text("9")
    body = "import importlib.resources, pkgutil\n"
    body += "VALUE = importlib.resources.files(__name__).joinpath('data').read_text()\n"
    body += "VALUE += str(pkgutil.get_data(__name__, 'data'))\n"
    (folder / NAME / "__init__.py").write_text(body)
    importlib.invalidate_caches()
    module = importlib.import_module(NAME)
    assert seen == ["9b'9'"]
    assert importlib.resources.files(module).joinpath("data").read_text() == "9"
    assert pkgutil.get_data(NAME, "data") == b"9"
    assert inspect.getsource(module) == body


def test_what_a_callback_raises_is_raised_by_the_import(write: Callable[[str], None]) -> None:
    def fail(name: str) -> None:
        raise ValueError(name)

    write("")
    ImportHook().after_import(NAME, fail)
    with pytest.raises(ValueError, match=NAME):
        importlib.import_module(NAME)
