"""What FLA computes in Triton's interpreter, which needs no GPU: its operators of KDA and its gate against float64."""

from pathlib import Path

from helpers import SUPPORT, python

INTERPRETED = {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}


def test_kda_gives_what_the_float64_form_says(tmp_path: Path) -> None:
    program = Path(__file__).with_name("fla_interpreted.py").read_text()
    rows = python(program, SUPPORT, home=tmp_path, extra=INTERPRETED)
    assert len(rows) == 12
    for call, bound, wrong, compared, with_another in rows:
        assert wrong is None, (call, bound, wrong)
        assert compared >= 1 + ("gate(" not in call)
        assert "out" in with_another, "wrong numbers are noticed"
