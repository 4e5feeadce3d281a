"""Rows of a manifest's ``models``, and what they leave out."""

from gdn_aot.catalogue.models import GDN, KDA
from gdn_aot.catalogue.rows import alike, shape_of

ROW = {"name": "mine", "tp": 2, "heads": 4, "v_heads": 4, "k_dim": 64, "v_dim": 64, "conv_width": 4, "dtype": "bf16"}


def test_the_shape_of_a_row() -> None:
    shape = shape_of(ROW)
    assert (shape.family, shape.gate_bound, shape.norm_activation) == (GDN, 0.0, "silu")
    assert shape_of({**ROW, "family": KDA, "gate_bound": None}).gate_bound == 0.0
    other = shape_of({**ROW, "family": KDA, "gate_bound": -5.0})
    assert (other.family, other.gate_bound, other.norm_activation, other.hidden) == (KDA, -5.0, "sigmoid", 256)
    assert shape_of({**ROW, "name": "kimi-k3"}).gate_bound == -5.0


def test_a_row_is_of_its_family_and_bound_also_if_it_does_not_say_them() -> None:
    kda = {**ROW, "family": KDA}
    for row, family, bound in ((ROW, GDN, 0.0), (kda, KDA, 0.0), ({**kda, "gate_bound": -5.0}, KDA, -5.0)):
        for wanted in ((GDN, 0.0), (KDA, 0.0), (KDA, -5.0)):
            values = {"heads": 4, "conv_width": None, "family": wanted[0], "gate_bound": wanted[1]}
            assert alike(row, values) is ((family, bound) == wanted)
        assert alike(row, {"heads": 4, "family": family, "gate_bound": None}), "a bound that is not known"
        assert not alike(row, {"heads": 8})
