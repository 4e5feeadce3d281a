"""A real browser, asked through two pipes: Chromium's DevTools protocol needs no library for that.

``GDN_AOT_TEST_BROWSER`` names one; else Chromium or Chrome is looked for. Nothing here uses a network.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
PATIENCE = 30.0
"""Seconds that anything may take on a loaded machine."""


def find() -> str | None:
    """Return the path of a browser; None if there is none. One that the variable names has to be there."""
    named = os.environ.get("GDN_AOT_TEST_BROWSER")
    if named:
        found = shutil.which(named)
        assert found, f"GDN_AOT_TEST_BROWSER={named} is no program"
        return found
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One browser with one page."""

    def __init__(self, requests: BinaryIO | FileIO, answers: int) -> None:
        self._in, self._out = requests, answers
        self._left, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for name in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{name}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask for something and return the answer; what happens meanwhile is kept in ``events``."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        self._in.write(json.dumps(request).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            chunk = os.read(self._out, 1 << 20)
            assert chunk, "the browser ended"
            self._left += chunk
        line, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def run(self, code: str) -> Any:
        """Return what an expression of JavaScript comes to, awaited, as JSON has it."""
        done = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({code})"):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.02)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Open a file in a window of this size and colour scheme."""
        self.events.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.until("document.readyState === 'complete' && 'ready' in document.documentElement.dataset")

    def press(self, key: str, **more: Any) -> None:
        """Press and release a key, as ``Tab`` or ``Enter``."""
        codes = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}
        code, text = codes[key]
        common = {"key": key, "windowsVirtualKeyCode": code, **more}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def point_at(self, element: str) -> None:
        """Move the mouse onto an element, an expression of JavaScript, once it is in the window."""
        self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.run(f"JSON.parse(JSON.stringify({element}.getBoundingClientRect()))")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for nearer in (2, 0):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + nearer, y=y)

    def faults(self) -> list[str]:
        """Return errors of scripts, refusals of the page's policy and failed requests since it was opened."""
        self.run("0")
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
        return found

    def requested(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        self.run("0")
        asked = (event["params"]["request"]["url"] for event in self.events
                 if event.get("method") == "Network.requestWillBeSent")  # fmt: skip
        return [url for url in asked if not url.startswith("about:")]

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """Write what is seen, or the ``whole`` page, as a PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def names(self) -> list[tuple[str, str]]:
        """Return role and name of everything that a screen reader is told of."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        told = (node for node in nodes if not node.get("ignored"))
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in told]


@contextlib.contextmanager
def started(program: str) -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    to_read, requests = os.pipe()
    answers, to_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        words = ("bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash", program, *_FLAGS)
        process = subprocess.Popen(
            [*words, f"--user-data-dir={profile}"], pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": profile},
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        try:
            with os.fdopen(requests, "wb", buffering=0) as asked:
                yield Browser(asked, answers)
        finally:
            process.kill()
            process.wait()
            os.close(answers)
