"""The page in a real browser: what it draws, by keyboard, for screen readers, dark, narrow, printed, and hostile."""

import base64
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from builds import Built
from pages import Page

DRAWN = """(() => { const plots = [...document.querySelectorAll('.plot')];
  return plots.length > 0 && plots.every((plot) => plot.querySelector('svg .mark-group') || !plot.clientWidth); })()"""
OPEN_ALL = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
MADE = ["one", "several", "compared", "compared_records"]


def violations(browser: Browser) -> list[tuple[str, str, list[str]]]:
    """Ask axe which rules of WCAG 2.1 AA and of good practice the page breaks as it is, and where."""
    browser.run(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8") + "; 0")
    found: list[dict[str, Any]] = browser.run("axe.run(document).then((done) => done.violations)")
    return [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]


def open_times(browser: Browser) -> None:
    """Open the first kernel that has times, and the times of its first key."""
    browser.run("for (const details of document.querySelectorAll('details.whole')) { details.open = true; break; }")
    for place in range(browser.run("document.querySelectorAll('details.kernel').length")):
        browser.run(f"document.querySelectorAll('details.kernel')[{place}].open = true")
        browser.until(f"document.querySelectorAll('details.kernel')[{place}].querySelector('tbody')")
        if browser.run("document.querySelectorAll('details.kernel tbody button').length"):
            break
    browser.run("document.querySelector('details.kernel tbody button').click()")
    browser.until("document.querySelector('.times tbody tr')")
    browser.until(DRAWN)


@pytest.mark.parametrize(("made", "dark"), [("one", False), ("one", True), ("compared", False), ("several", False)])
def test_everybody_can_read_it(chromium: Browser, made: str, request: pytest.FixtureRequest, *, dark: bool) -> None:
    """Others are asked about as they open: there is no other kind of part in them than in the page of one."""
    chromium.open(request.getfixturevalue(made), dark=dark)
    if made == "one":
        open_times(chromium)
        chromium.run("document.querySelectorAll('details.plotted').forEach((details) => { details.open = true; })")
        chromium.until(DRAWN)
    assert violations(chromium) == []


@pytest.mark.parametrize("made", MADE)
def test_everything_can_be_opened(chromium: Browser, made: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(made)
    chromium.open(page)
    open_times(chromium)
    chromium.run(OPEN_ALL)
    chromium.until(DRAWN)
    assert chromium.faults() == []
    assert chromium.requested() == [page.as_uri()]


def test_what_is_drawn_is_what_was_measured(chromium: Browser, one: Path, tuned: Built) -> None:
    data = Page(one).data
    chromium.open(one)
    assert not chromium.run("document.querySelector('svg')"), "drawn before anybody asked"
    assert not chromium.run("'vega' in window || 'vegaEmbed' in window")
    open_times(chromium)
    (group,) = (group for group in data["groups"] if group["kind"] == "choices")
    (kernel,) = (kernel for kernel in tuned.manifest.kernels if kernel.choices)
    keys = "document.querySelectorAll('details.kernel .long tbody tr, details.kernel .scroll tbody tr')"
    shown = chromium.run(f"[...{keys}].filter((row) => !row.closest('.times')).map((row) => row.textContent)")
    assert len(shown) == len(kernel.choices)
    assert all(str(choice.config) in row for row, choice in zip(shown, kernel.choices, strict=True))
    first = next(row for row in group["rows"] if row[5] is not None)
    timing = data["timings"][first[5]]
    cells = "(row) => [...row.children].map((one) => one.textContent)"
    rows = chromium.run(f"[...document.querySelectorAll('.times tbody tr')].map({cells})")
    assert [row[0] for row in rows] == [data["texts"][line[0]] for line in timing["rows"]]
    assert [row[3] for row in rows] == [f"{line[3][0]} ± {line[4][0]}" for line in timing["rows"]]
    (mine,) = (row for row in rows if row[0] == data["texts"][first[1]])
    assert mine[1].startswith("this choice")
    points = chromium.run(
        "document.querySelectorAll('.times .plot')[0].querySelectorAll('.mark-symbol.role-mark path').length"
    )
    assert points == len(timing["tokens"]) * sum(None not in line[3] for line in timing["rows"])


def test_by_keyboard_alone(chromium: Browser, one: Path) -> None:
    chromium.open(one)
    active = "document.activeElement"
    chromium.press("Tab")
    assert chromium.run(f"{active}.textContent") == "Skip to the content"
    assert chromium.run(f"getComputedStyle({active}).outlineStyle") == "solid", "the focus can be seen"
    chromium.press("Enter")
    chromium.until(f"{active}.tagName === 'MAIN'")
    for _ in range(60):
        chromium.press("Tab")
        if chromium.run(f"{active}.parentElement.className") == "kernel":
            break
    assert chromium.run(f"{active}.tagName") == "SUMMARY"
    chromium.press("Enter")
    chromium.until("document.querySelector('details.kernel[open] tbody button')")
    for _ in range(10):
        chromium.press("Tab")
        if chromium.run(f"{active}.getAttribute('aria-expanded')"):
            break
    assert chromium.run(f"{active}.textContent").startswith("Times of ")
    chromium.press(" ")
    chromium.until("document.querySelector('.times')")
    assert chromium.run(f"{active}.closest('.times') && {active}.tagName") == "H5"
    chromium.press("Tab")
    assert chromium.run(f"{active}.textContent") == "Close"
    chromium.press("Enter")
    assert not chromium.run("document.querySelector('.times')")
    assert chromium.run(f"{active}.getAttribute('aria-expanded')") == "false"


def test_for_screen_readers(chromium: Browser, one: Path) -> None:
    chromium.open(one)
    open_times(chromium)
    told = chromium.names()
    roles = [role for role, _ in told]
    assert {"banner", "navigation", "main", "contentinfo"} <= set(roles)
    levels = [
        int(level)
        for level in chromium.run("[...document.querySelectorAll('h1,h2,h3,h4,h5')].map((one) => one.tagName[1])")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    plots = [name for role, name in told if role == "graphics-document"]
    assert len(plots) == chromium.run("document.querySelectorAll('.plot').length") > 2
    assert all("the table below has" in name for name in plots)
    assert not [name for role, name in told if role in ("table", "region", "button", "searchbox") and not name]
    assert any(role == "button" and name.startswith("Times of ") for role, name in told)


def test_keys_are_filtered(chromium: Browser, one: Path) -> None:
    chromium.open(one)
    open_times(chromium)
    code = """(() => { const field = document.querySelector('input[type=search]');
      field.value = %r; field.dispatchEvent(new Event('input'));
      const rows = [...field.closest('div').querySelectorAll(':scope > .scroll tbody tr')];
      const said = field.parentElement.querySelector('output').textContent;
      return [rows.filter((row) => !row.hidden && row.offsetHeight).length, rows.length, said]; })()"""
    shown, count, said = chromium.run(code % "MEASURED bfloat16")
    assert 0 < shown <= count
    assert said == f"{shown} of {count}"
    assert chromium.run(code % "nothing like it")[0] == 0
    assert chromium.run(code % "qwen3.5-9b D=128")[0] > 0
    assert chromium.run(code % "qwen3.5-27b")[0] == 0
    assert chromium.run(code % "")[0] == count


@pytest.mark.parametrize("made", ["one", "compared_records"])
def test_on_a_narrow_screen(chromium: Browser, made: str, request: pytest.FixtureRequest) -> None:
    chromium.open(request.getfixturevalue(made), width=360, height=700)
    open_times(chromium)
    chromium.run(OPEN_ALL)
    chromium.until(DRAWN)
    assert chromium.run("document.documentElement.scrollWidth") <= 360
    wide = (
        "[...document.querySelectorAll('svg')].filter((one) => one.getBoundingClientRect().right > innerWidth).length"
    )
    assert chromium.run(wide) == 0


def test_dark_and_light_follow_what_is_wanted_even_in_plots(chromium: Browser, one: Path) -> None:
    colours = {}
    code = """(() => { const style = (one) => getComputedStyle(document.querySelector(one));
      const [text, grid] = [style('.plot svg text').fill, style('.plot svg .role-axis-grid line').stroke];
      return [style('body').backgroundColor, text, grid]; })()"""
    for dark, media in ((False, ""), (True, ""), (True, "print")):
        chromium.open(one, dark=dark, media=media)
        open_times(chromium)
        colours[dark, media] = chromium.run(code)
    assert colours[False, ""][0] == "rgb(255, 255, 255)"
    assert all(light != dark for light, dark in zip(colours[False, ""], colours[True, ""], strict=True))
    assert colours[True, "print"][:2] == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]


def test_it_can_be_printed(chromium: Browser, one: Path) -> None:
    chromium.open(one, dark=True)
    open_times(chromium)
    pdf = base64.b64decode(chromium.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000


def test_a_link_opens_what_it_leads_to(chromium: Browser, several: Path) -> None:
    chromium.open(several)
    assert not chromium.run("document.querySelector('#artifact-1 details').open")
    chromium.run("document.querySelector('table a[href=\"#artifact-1\"]').click()")
    chromium.until("document.querySelector('#artifact-1 details').open")


def test_a_link_opens_a_kernel(chromium: Browser, several: Path) -> None:
    chromium.open(several)
    link = "document.querySelector('a[href^=\"#kernel-2-\"]')"
    chromium.run(f"{link}.click()")
    chromium.until("document.querySelector('details.kernel[id^=kernel-2-][open] tbody')")
    assert chromium.run("location.hash").startswith("#kernel-2-layer_norm_gated")


def test_the_keyboard_stops_only_at_tables_that_scroll(chromium: Browser, one: Path) -> None:
    code = """[...document.querySelectorAll('.scroll')].filter((one) => one.checkVisibility()).map((one) =>
      [one.hasAttribute('tabindex'), one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight])"""
    found = []
    for width in (420, 1600):
        chromium.open(one, width=width, height=900)
        chromium.until(f"{code}.every(([stops, scrolls]) => stops === scrolls)")
        pairs = chromium.run(code)
        found += [scrolls for _, scrolls in pairs]
    assert set(found) == {True, False}


def test_tables_of_choices_fit_a_telephone(chromium: Browser, one: Path) -> None:
    chromium.open(one, width=420, height=800)
    widths = "[...document.querySelectorAll('.fits')].map((one) => one.scrollWidth - one.clientWidth)"
    assert chromium.run(widths) == [0, 0]


def test_nothing_of_a_file_is_run(chromium: Browser, hostile: Path) -> None:
    chromium.open(hostile)
    open_times(chromium)
    chromium.run(OPEN_ALL)
    chromium.until(DRAWN)
    assert chromium.run("window.taken") is None
    assert not chromium.run("document.querySelector('img, iframe, b')")
    chromium.point_at("document.querySelector('details.kernel > .drawn > figure .mark-symbol.role-mark path')")
    chromium.until("document.querySelector('#vg-tooltip-element.visible')")
    assert "<img src=x" in chromium.run("document.querySelector('#vg-tooltip-element').textContent")
    assert not chromium.run("document.querySelector('img, iframe, b')")
    assert "<img src=x" in chromium.run("document.querySelector('.times').textContent")
    assert chromium.faults() == []
    assert chromium.requested() == [hostile.as_uri()]
