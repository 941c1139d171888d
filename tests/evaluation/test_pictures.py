import numpy as np
import pytest

from fetalclip_jax.evaluation import pictures
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Estimate, Result, load


def grey(name, value):
    return Picture(name, np.full((4, 6), value, np.uint8), f"Caption of {name}.", f"{name} alone")


def test_pictures_come_back_in_order_and_replace_those_of_an_earlier_result(tmp_path):
    result = Result("segmentation.head", {"dice": Estimate(0.9)}, pictures=[grey("a", 1)])
    result.save(tmp_path)
    path = Result(
        "segmentation.head", {"dice": Estimate(0.9)}, pictures=[grey("c", 3), grey("b", 2)]
    ).save(tmp_path)
    found = pictures.load(tmp_path, "segmentation.head")
    assert [(one.name, one.image[0, 0], one.caption) for one in found] == [
        ("c", 3, "Caption of c."),
        ("b", 2, "Caption of b."),
    ]
    files = {file.name for file in (tmp_path / "pictures" / "segmentation.head").iterdir()}
    assert files == {"pictures.json", "b.png", "c.png"}
    assert load(path).metrics == {"dice": Estimate(0.9)}
    Result("segmentation.head", {"dice": Estimate(0.9)}).save(tmp_path)
    assert pictures.load(tmp_path, "segmentation.head") == []


def test_damaged_pictures_and_names_given_twice_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a name of its own"):
        pictures.save(tmp_path, "s", [grey("a", 1), grey("a", 2)])
    pictures.save(tmp_path, "s", [grey("a", 1)])
    (tmp_path / "pictures" / "s" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"pictures.json cannot be used .*; evaluate again"):
        pictures.load(tmp_path, "s")
