"""Neither the length of a prompt nor the number of prompts in a dense batch is compiled for, however large it is."""

from typing import Any

_CODE = """
install(strict=True)
become("sm_90")
for tokens in (1, 32768, 32769, 65537, 100_000, 262144):
    prefill(tokens)
for batch in (1, 2, 3, 48, 64, 65, 300, 4096):
    prefill(3, batch=batch)
prefill(262144, heads=32)
done()
"""


def test_any_length_and_batch_is_served(serve: Any) -> None:
    got = serve(_CODE)
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    assert got["report"]["misses"] == []
    assert got["report"]["chosen"] > 0
    assert got["launched"].count("chunk_local_cumsum_scalar_kernel") == 15


def test_the_batch_is_an_argument_of_one_binary(serve: Any) -> None:
    got = serve(
        "install(strict=True); become('sm_90')\nfor batch in (2, 3, 4, 5, 6, 7): prefill(3, batch=batch)\ndone()"
    )
    loaded = [name for name in got["loaded"] if name == "chunk_local_cumsum_scalar_kernel"]
    assert 1 <= len(loaded) <= 2, "one for each configuration, not one for each batch"
