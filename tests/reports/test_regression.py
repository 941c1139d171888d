import io

import numpy as np
from PIL import Image

from fetalclip_jax.evaluation.result import Estimate, Predictions, Result
from fetalclip_jax.reports import naming, regression
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import DATA, MODEL, PROTOCOL
from tests.reports.pages import Page


def result(column="hc_mm", **fields):
    rng = np.random.default_rng(0)
    true = rng.uniform(100, 300, 30)
    ids = np.array([f"i{k}" for k in range(30)])
    fields = {"predictions": Predictions(ids, ids, true, true + rng.normal(0, 5, 30))} | fields
    return Result(
        f"regression.{column}",
        {"mae_mm": Estimate(4.0, 3.0, 5.0, 30, 30), "r2": Estimate(0.95, n=30)},
        model=MODEL, data=DATA, protocol=PROTOCOL, details={"spacing": "product"}, **fields,
    )  # fmt: skip


def test_predictions_and_differences_are_drawn(tmp_path):
    contents = Contents((), (Evaluated(result(), tmp_path, "m / d"),))
    page = Page("".join(regression.parts(Report(contents, tmp_path / "figures"))))
    assert len(page.sources) == 1
    assert "Supervised head circumference: mean absolute error 4.0 mm; R2 0.950." in page.text
    assert "sees the pixel spacing" in page.text
    picture = Image.open(tmp_path / "figures/regression_hc_mm.png")
    assert picture.width > 1000


def test_without_predictions_the_figure_is_missing_and_said(tmp_path):
    contents = Contents((), (Evaluated(result(predictions=None), tmp_path, "m / d"),))
    report = Report(contents, tmp_path)
    assert "".join(regression.parts(report)) == ""
    assert "Supervised head circumference of m / d: no predictions" in report.missing[0]


def test_one_image_makes_a_figure():
    one = np.array([150.0])
    png = regression.agreement_figure(one, one + 2, "age (days)", "Supervised age")
    assert Image.open(io.BytesIO(png)).height > 300


def test_errors_are_named_with_their_unit():
    assert naming.metric("mae_mm").show(7.06) == "7.1 mm"
    assert naming.metric("mae_mm").lower_is_better
    assert not naming.metric("bias_weeks").lower_is_better
    assert naming.metric("lower_limit_days").words == "lower limit of agreement"
    assert naming.metric("mae").show(712.3) == "712.3"
    assert "implied" in naming.metric("mae_days", naming.IMPLIED_AGES).words
    assert naming.title("regression.weight_g") == "Supervised weight g"
