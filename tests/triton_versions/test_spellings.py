"""Launch keys whose options are written otherwise, with the installed Triton's own options."""

from typing import Any

import pytest
from helpers import python
from launching import STUBBED

CODE = """
from gdn_aot.triton_internals import Launch, spellings
from gdn_aot.triton_internals.serving import backend_of

def key(**options):
    return Launch(kernels.every, tuple(kernels.arguments().values()), options).key

backend = backend_of(kernels.every, 0) if key() else None
def same(asked, *others):
    texts = [spellings.options_text(other) for other in others]
    return [others.index(found) for found in spellings.respelled_keys(backend, asked, texts)]
plain = key(num_warps=1, num_stages=3)
"""


@pytest.fixture(scope="module")
def got(tmp_path_factory: pytest.TempPathFactory) -> Any:
    code = """
defaults = dict(num_warps=1, num_stages=3, num_ctas=1, maxnreg=None, launch_pdl=False)
print(json.dumps({
    "every default": same(key(**defaults), plain),
    "the other way": same(plain, key(**defaults)),
    "another order": same(key(num_ctas=1, num_stages=3, num_warps=1), plain),
    "left out": same(key(num_warps=1), plain, key(num_warps=4)),
    "itself": same(plain, plain),
    "another number": same(key(num_warps=2, num_ctas=1, num_stages=3), plain),
    "registers": same(key(num_warps=1, num_stages=3, maxnreg=64), plain),
    "debug": same(key(num_warps=1, num_stages=3, num_ctas=1, debug=True), plain),
    "unknown": same(key(num_warps=1, num_stages=3, colour="red"), plain),
    "refused": same(key(num_warps=3, num_stages=3), plain),
    "of several": same(key(**defaults), key(num_warps=2), plain, key(num_warps=1)),
    "no key": [spellings.options_text("{}"), spellings.options_text(""), same("[('i32', 'D')]{'num_warps': x}", plain)],
    "arguments stay": [
        spellings.respelled_keys(backend, key(**defaults), [spellings.options_text(plain)]) == [plain],
        spellings.respelled_keys(backend, plain.replace("'relu'", "']{'"), [spellings.options_text(key(**defaults))])
        == [key(**defaults).replace("'relu'", "']{'")],
    ],
}))
"""
    return python(STUBBED + CODE + code, home=tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("how", ["every default", "the other way", "another order", "left out"])
def test_the_same_launch(got: Any, how: str) -> None:
    assert got[how] == [0]


@pytest.mark.parametrize("how", ["itself", "another number", "registers", "debug", "unknown", "refused"])
def test_another_launch(got: Any, how: str) -> None:
    assert got[how] == []


def test_all_that_are_the_same(got: Any) -> None:
    assert got["of several"] == [1, 2]


def test_what_is_no_key(got: Any) -> None:
    assert got["no key"] == ["", "", []]


def test_arguments_stay_as_they_are(got: Any) -> None:
    assert got["arguments stay"] == [True, True]
