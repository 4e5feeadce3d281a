"""The client inside the process of a test, set as its environment variables would have set it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from loopback import LoopbackHub


@contextmanager
def client_of(hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the client use a hub and a home of its own; no token, no Xet and no pauses between its attempts.

    These are the constants that HF_ENDPOINT, HF_HOME, HF_HUB_DISABLE_XET and HF_HUB_DISABLE_PROGRESS_BARS set when the
    client is imported.
    """
    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    # Else the first client of a process without a cache asks for it: /api/agent-harnesses, without a token.
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", {"standardEnvVars": [], "harnesses": {}})
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    try:
        yield
    finally:
        close_session()
