"""The site of the documents: it builds strictly and without a network, and its reference is that of the code."""

import ast
import importlib
import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
import schemas
from builds import Built
from helpers import ROOT, TIMEOUT

import gdn_aot
from gdn_aot import errors
from gdn_aot.cli.main import COMMANDS, cli


def build(where: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a folder; whoever asks the network is answered by nobody."""
    nobody = "http://127.0.0.1:9"
    ours = {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1", "HTTP_PROXY": nobody, "HTTPS_PROXY": nobody}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(into)],
        cwd=where,
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    done = build(ROOT, into)
    assert done.returncode == 0, done.stderr
    return into


class Text(HTMLParser):
    """The text of an article of the site, and what the page loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.inside = 0
        self.feed(page.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.inside += tag == "article"
        self.ids += [found["id"] or ""] if "id" in found else []
        self.loaded += [value for name in ("src", "srcset") if (value := found.get(name))]
        self.loaded += [found.get("href") or ""] if tag == "link" and found.get("rel") != "canonical" else []

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag == "article"

    def handle_data(self, data: str) -> None:
        self.words += [data] if self.inside else []


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def test_strict_finds_what_is_wrong(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs/_site", docs / "_site", ignore=shutil.ignore_patterns("__pycache__"))
    settings = (ROOT / "mkdocs.yml").read_text()
    nav = "nav:\n  - index.md\n  - other.md\n\n"
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"^nav:.*?\n\n", nav, settings, flags=re.MULTILINE | re.DOTALL))
    (docs / "index.md").write_text("# Home\n\n[a](other.md#part) [b](../LICENSE) [c](../folder)\n")
    (docs / "other.md").write_text("# Other\n\n## Part\n")
    (tmp_path / "LICENSE").write_text("None.\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x.json").write_text("{}\n")
    sound = build(tmp_path, tmp_path / "sound")
    assert sound.returncode == 0, sound.stderr
    assert (tmp_path / "sound/repository/folder/x.json").exists()
    (docs / "index.md").write_text("# Home\n\n[a](other.md#gone) [b](../gone.py) [c](gone.md)\n")
    (docs / "lost.md").write_text("# Lost\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "'other.md#gone'" in done.stderr
    assert "'../gone.py'" in done.stderr
    assert "'gone.md'" in done.stderr
    assert "lost.md" in done.stderr


def test_pages_load_nothing_of_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        assert not [loaded for loaded in Text(page).loaded if re.match(r"(https?:)?//", loaded)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)[\s\"']*(https?:)?//", sheet.read_text()), sheet


def every_command() -> dict[str, click.Command]:
    found = {f"gdn-aot {name}": importlib.import_module(f"gdn_aot.cli.{name}").command for name in COMMANDS}
    groups = [(name, command) for name, command in found.items() if isinstance(command, click.Group)]
    return found | {f"{name} {sub}": command for name, group in groups for sub, command in group.commands.items()}


def test_the_command_line_is_that_of_click(site: Path) -> None:
    page = Text(site / "reference/cli.html")
    commands = every_command()
    assert len(commands) > len(COMMANDS)
    for name, command in commands.items():
        assert name.replace(" ", "-") in page.ids
        context = click.Context(command, info_name=name)
        about = squeezed(inspect.cleandoc(command.help or "").split("\n\n")[0])
        assert about in page.text, name
        records = [record for param in command.params if (record := param.get_help_record(context))]
        assert records or not command.params, name
        lost = [names for names, what in records if squeezed(f"{names} {what}") not in page.text]
        assert lost == [], name
    assert "Sentinel" not in page.text
    assert " at 0x" not in page.text


def test_the_exit_codes_are_those_of_the_errors(site: Path) -> None:
    text = Text(site / "reference/exit-codes.html").text
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GdnAotError)]
    assert len(kinds) > 30
    for kind in kinds:
        about = squeezed(kind.__doc__ or "").replace("`", "")
        row = f"{kind.exit_code} {kind.code} {about} {squeezed(kind.default_hint)} {kind.__name__}"
        assert row in text
    epilog = cli.epilog or ""
    for code in {kind.exit_code for kind in kinds}:
        assert re.search(rf"\b{code} ", epilog), code


def test_the_python_api_is_that_of_the_package(site: Path) -> None:
    page = Text(site / "reference/python.html")
    for name in set(gdn_aot.__all__) - {"__version__"}:
        exported = getattr(gdn_aot, name)
        written_in = re.search(r"`(gdn_aot\.serving\.\w+)\.", exported.__doc__)
        assert written_in
        documented = getattr(importlib.import_module(written_in[1]), name)
        assert inspect.signature(exported) == inspect.signature(documented)
        assert f"{written_in[1]}.{name}" in page.ids
        assert squeezed(documented.__doc__.split("\n")[0]).replace("`", "") in page.text


NO_VARIABLES = {"PCI_BUS_ID", "CERTIFICATE_VERIFY_FAILED", "LOAD_GLOBAL", "LOAD_NAME", "PIN_MEMORY", "NUM_STATE_SLOTS"}
"""What else has the form of a variable's name: a value, and names in OpenSSL, Python and engines; and ``os.O_...``."""
OTHERS_READ = {"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"}
"""The code asks for these by their endings, as httpx does."""
NAME = re.compile(r"GDN_AOT|CC|PATH|TERM|TMPDIR|[A-Z][A-Z0-9]*(_[A-Za-z0-9]+)+")


def variables() -> set[str]:
    """Return every variable that the package names, by the form of its strings."""
    found = set()
    for file in (ROOT / "gdn_aot").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        attributes = {id(call.args[1]) for call in calls if getattr(call.func, "id", "") in {"getattr", "hasattr"}}
        strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found |= {node.value for node in strings if id(node) not in attributes and NAME.fullmatch(str(node.value))}
    for pattern in ("*.c", "*.h"):
        for file in (ROOT / "gdn_aot").rglob(pattern):
            found |= set(re.findall(r"getenv\(\"(\w+)\"\)", file.read_text(encoding="utf-8")))
    found = {name for name in found if name.upper() == name or name.startswith("TRITON_")} - NO_VARIABLES
    return {name for name in found if not name.startswith("O_")}


def test_the_table_of_variables_is_that_of_the_code() -> None:
    lines = (ROOT / "docs/reference/environment.md").read_text(encoding="utf-8").splitlines()
    cells = [line.split("|")[1] for line in lines if line.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) == len(set(named))
    assert set(named) - OTHERS_READ == variables()


def test_every_schema_is_named_among_the_formats() -> None:
    text = (ROOT / "docs/reference/formats.md").read_text(encoding="utf-8")
    assert set(re.findall(r"schemas/(\w+)\.schema\.json", text)) == set(schemas.FORMS)


def test_every_decision_has_its_line() -> None:
    index = (ROOT / "docs/adr/index.md").read_text(encoding="utf-8")
    records = {path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md")}
    assert set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index)) == records


def test_the_picture_of_the_floors_is_that_of_the_contract() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/_site/floors.py"))
    assert drawn["PICTURE"].read_text(encoding="utf-8") == drawn["draw"]()


def test_the_tutorial_prints_what_it_says(sm_120: Built) -> None:
    """Its commands are run, as by a user who has just been made; what they compile is that of the fixture."""
    tutorial = runpy.run_path(str(ROOT / "docs/_site/tutorial.py"))
    page = tutorial["PAGE"].read_text(encoding="utf-8")
    outputs = tutorial["run"](tutorial["commands"](page), sm_120.home / "build")
    assert len(outputs) > 8
    assert tutorial["lost"](page, outputs) == []
    assert "compiled 0 (" in outputs[1]
    assert tutorial["run"](["echo build: 37 of 72, sm_120: compiling, 25 s left && echo done"]) == ["done\n"]
    assert tutorial["lost"](page.replace("8 kernels", "9 kernels"), outputs)
