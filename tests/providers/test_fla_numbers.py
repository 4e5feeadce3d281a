"""What FLA computes in Triton's interpreter, which needs no GPU: its operators of KDA and its gate against float64."""

from pathlib import Path

from helpers import SUPPORT, python

INTERPRETED = {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}


def test_kda_gives_what_the_float64_form_says(tmp_path: Path) -> None:
    program = Path(__file__).with_name("fla_interpreted.py").read_text()
    rows = python(program, SUPPORT, home=tmp_path, extra=INTERPRETED)
    assert len(rows) == 18
    gradients: set[str] = set()
    for call, bound, wrong, compared, with_another in rows:
        assert wrong is None, (call, bound, wrong)
        assert compared >= 1 + ("gate(" not in call)
        for name, noticed in with_another.items():
            assert name == "state" or name in (noticed or ""), f"{call}: a wrong {name} is noticed"
        gradients |= {name for name in with_another if name.startswith("d.")}
    assert gradients == {"d.q", "d.k", "d.v", "d.g", "d.beta", "d.initial_state", "d.A_log", "d.dt_bias", "d.x"}
