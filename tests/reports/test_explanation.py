import numpy as np

from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Baseline, Estimate, Result
from fetalclip_jax.reports import explanation, headline, naming
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import DATA, MODEL, PROTOCOL
from tests.reports.pages import Page


def result(study, metrics, baselines):
    return Result(
        study,
        {name: Estimate(*edges, 100, 20) for name, edges in metrics.items()},
        model=MODEL,
        data=DATA,
        protocol=PROTOCOL,
        baselines={
            f"{kind}_{name}": Baseline(name, Estimate(value), kind)
            for name in metrics
            for kind, value in baselines.items()
        },
        details={"patients": 20},
        pictures=[Picture("maps", np.zeros((4, 4, 3), np.uint8), f"Maps of {study}.", "maps")],
        environment={"python": "3"},
    )


def report(tmp_path, *results):
    for one in results:
        one.save(tmp_path / "kept")
    found = (Evaluated(one, tmp_path / "kept", "quickstart / phantom") for one in results)
    return Report(Contents((), tuple(found)), tmp_path)


HEAD = result(
    "explanation.head",
    {"hires_cam_mass": (0.5, 0.4, 0.6), "hires_cam_hits": (0.75, None, None)},
    {"centre": 0.625, "chance": 0.25},
)
AGES = result(
    "embedding_map.ga_days", {"neighbour_error_days": (17.5, 16.0, 19.0)}, {"chance": 20.25}
)


def test_maps_stand_beside_chance_and_a_central_spot(tmp_path):
    page = Page("".join(explanation.maps(report(tmp_path, AGES, HEAD))))
    assert page.rows[0][-3:] == ["Value", "Chance", "Spot in the middle"]
    assert [row[1:] for row in page.rows[1:]] == [
        ["HiResCAM inside the outline", "50.0 % (40.0 to 60.0)", "25.0 %", "62.5 %"],
        ["maximum of HiResCAM inside the outline", "75.0 %", "25.0 %", "62.5 %"],
    ]
    assert "Maps of explanation.head." in page.text
    assert "Maps of embedding_map.ga_days." not in page.text


def test_the_map_of_features_has_its_picture(tmp_path):
    page = Page("".join(explanation.embeddings(report(tmp_path, HEAD, AGES))))
    assert "Maps of embedding_map.ga_days." in page.text
    assert not page.rows
    assert not "".join(explanation.embeddings(report(tmp_path, HEAD)))
    assert not "".join(explanation.maps(report(tmp_path, AGES)))


def test_an_error_of_neighbours_is_better_when_lower_and_has_its_unit(tmp_path):
    (row,) = headline.rows(report(tmp_path, AGES).contents)
    assert row.verdict[0] == "better"
    assert naming.metric("neighbour_error_days").show(17.5) == "17.5 days"
    assert naming.title("explanation.left_atrium") == "Explanation, left atrium"
