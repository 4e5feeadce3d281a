"""Proxies and mirrors that do not answer: which variable names them is said, and never who is let in."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from helpers import gdn_aot
from huggingface_hub import constants
from huggingface_hub.utils import close_session  # type: ignore[attr-defined]
from making import WANTED, Written

from gdn_aot.registry.ways import way_to

_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE")
_HUB = "https://huggingface.co"
_SECRET = "pass%40word"  # noqa: S105 - of nobody


@pytest.fixture(autouse=True)
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Hub's own address, no proxy, a cache of its own and no pauses between attempts."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", _HUB)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", {"standardEnvVars": [], "harnesses": {}})
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    close_session()
    yield
    close_session()


@pytest.fixture
def closed() -> str:
    """An address at which nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which connections are taken and nothing is ever said."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    """Start proxies that answer whatever is asked with a status of their own."""
    servers: list[HTTPServer] = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_POST = do_CONNECT = answer  # noqa: N815 - http.server wants these names

            def log_message(self, *_args: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ask(tmp_path: Path, sm_120: Written) -> Callable[..., str]:
    """Run a command that asks the Hub and cannot have an answer; return what it says."""

    def ask(command: str = "list") -> str:
        words: dict[str, list[object]] = {
            "list": ["list"],
            "lock": ["lock", "--arch", "sm_120", *WANTED, "-o", tmp_path / "gdn-aot.lock"],
            "fetch": ["fetch", "--arch", "sm_120", *WANTED],
            "publish": ["publish", sm_120.path, "--token", "hf_" + "x" * 34],
        }
        done = gdn_aot(*words[command], "--repo", "hf://org/name", home=tmp_path / "home", code=7)
        assert "secret" not in done.err
        assert _SECRET not in done.err
        return done.err

    return ask


@pytest.mark.parametrize("command", ["list", "lock", "fetch", "publish"])
def test_a_proxy_that_is_not_there(
    ask: Callable[..., str], closed: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://secret:{_SECRET}@{closed}")
    error = ask(command)
    assert f"through the proxy {closed} of HTTPS_PROXY, and the proxy was not reached" in error
    assert "NO_PROXY=huggingface.co" in error


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY", "all_proxy"])
def test_by_whatever_name(ask: Callable[..., str], closed: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, closed)
    assert f"through the proxy {closed} of {name}, and the proxy was not reached" in ask()


def test_a_proxy_that_never_answers(ask: Callable[..., str], silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://secret:{_SECRET}@{silent}")
    error = ask()
    assert f"through the proxy {silent} of HTTPS_PROXY, and no answer came in time" in error
    assert "check the proxy that HTTPS_PROXY names" in error


def test_a_proxy_that_lets_nobody_in(
    ask: Callable[..., str], answering: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = answering(407)
    for endpoint in (_HUB, "http://mirror.invalid"):  # by CONNECT, and as it is
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setenv("ALL_PROXY", f"http://secret:{_SECRET}@{proxy}")
        close_session()
        error = ask()
        assert f"through the proxy {proxy} of ALL_PROXY, and the proxy refused" in error
        assert "let ALL_PROXY say who asks" in error


def test_a_proxy_without_a_way_out(
    ask: Callable[..., str], answering: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = answering(504)
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.invalid")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.invalid")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    error = ask()
    assert f"http://mirror.invalid, which HF_ENDPOINT names, for revision v1 through the proxy {proxy}" in error
    assert "504" in error
    assert "HTTP_PROXY" in error


@pytest.mark.parametrize("value", ["ftp://secret@127.0.0.1:9", "http://secret:pass@127.0.0.1:nine", "socks5://[::1]:9"])
def test_what_is_no_proxy(ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    error = ask()
    assert "could not be asked for: see HTTPS_PROXY" in error
    assert "write http://HOST:PORT" in error or "socksio" in error


@pytest.mark.parametrize("proxy", ["", "http://elsewhere:1"])
def test_a_mirror_that_is_not_there(
    ask: Callable[..., str], closed: str, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{closed}")
    monkeypatch.setenv("HF_ENDPOINT", f"http://secret:{_SECRET}@{closed}")
    if proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    error = ask()
    assert f"asked http://{closed}, which HF_ENDPOINT names, for revision v1, and it was not reached" in error
    assert "unset it to ask the Hub itself" in error
    assert ("NO_PROXY keeps it from the proxy of HTTP_PROXY" in error) == bool(proxy)


@pytest.mark.parametrize("command", ["list", "publish"])  # without and with a token
@pytest.mark.parametrize("status", [401, 402, 403, 407])
def test_a_mirror_that_refuses(
    ask: Callable[..., str],
    answering: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    command: str,
) -> None:
    mirror = answering(status)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{mirror}")
    monkeypatch.setenv("HF_ENDPOINT", f"http://secret:{_SECRET}@{mirror}")
    error = ask(command)
    assert f"asked http://{mirror}, which HF_ENDPOINT names, for " in error
    assert f"({status})" in error
    assert "and it refuse" in error or "and it does not let the token" in error
    assert "check the mirror that HF_ENDPOINT names, or unset it to ask the Hub itself" in error
    assert "proxy" not in error.lower().replace("proxy authentication required", "")


@pytest.mark.parametrize("status", [401, 403])
def test_a_proxy_that_refuses_the_address(
    ask: Callable[..., str], answering: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    proxy = answering(status)
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.invalid")
    monkeypatch.setenv("HTTP_PROXY", f"http://secret:{_SECRET}@{proxy}")
    error = ask()
    assert f"through the proxy {proxy} of HTTP_PROXY, and it refuses" in error
    assert "check the proxy that HTTP_PROXY names; NO_PROXY=mirror.invalid goes without the proxy" in error


def test_neither(ask: Callable[..., str], closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{closed}")
    error = ask()
    assert "and it was not reached" in error
    assert "HTTPS_PROXY" in error
    assert "HF_ENDPOINT" in error


def test_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://a:b@proxy.example:3128/")
    assert way_to(f"{_HUB}/api/x", _HUB).proxy == "proxy.example:3128"
    assert way_to("https://user:secret@cdn.example/x?sig=1", _HUB).host == "cdn.example"
    assert way_to("http://mirror/x", _HUB).proxy == ""
    monkeypatch.setenv("https_proxy", "other:1")
    assert (way_to(_HUB, _HUB).proxy, way_to(_HUB, _HUB).variable) == ("other:1", "https_proxy")
    monkeypatch.setenv("no_proxy", "huggingface.co")
    assert (way_to(_HUB, _HUB).proxy, way_to(_HUB, _HUB).spared) == ("", "https_proxy")
    monkeypatch.setenv("no_proxy", "*")
    assert way_to("https://cdn.example", _HUB).proxy == ""
