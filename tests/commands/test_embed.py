"""`fetalclip embed` on a folder of all kinds of images."""

import csv

import numpy as np
import PIL.Image
import pytest


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "scans"
    (root / "monday").mkdir(parents=True)
    grey = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    PIL.Image.fromarray(grey).save(root / "plain.png")
    PIL.Image.fromarray(grey.astype(np.uint16) * 257).save(root / "monday" / "deep.tiff")
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    PIL.Image.fromarray(grey[::-1, ::-1]).save(root / "turned.tiff", exif=exif)
    (root / "torn.png").write_bytes((root / "plain.png").read_bytes()[:100])
    return root


def rows(path):
    with path.open() as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def test_features_scores_and_ages_of_a_folder(trained, run, folder, tmp_path):
    command = ["embed", "--model", trained, "--prompts", "planes", "--pixel-spacing-mm=0.3"]
    printed, error, status = run(*command, folder, "--output", tmp_path / "out.csv")
    assert status == 0, error
    found = rows(tmp_path / "out.csv")
    assert set(found) == {"plain.png", "monday/deep.tiff", "turned.tiff"}
    plain = found["plain.png"]
    scores = {name[7:]: float(plain[name]) for name in plain if name.startswith("planes.")}
    assert plain["planes"] == max(scores, key=scores.get)
    assert 98 <= int(plain["ga_days"]) <= 272
    assert float(plain["resized_spacing_mm"]) == pytest.approx(60 / 32 * 0.3, abs=1e-4)
    # The same picture in other clothes.
    features = {
        name: np.array([float(row[f"feature_{i}"]) for i in range(12)])
        for name, row in found.items()
    }
    for other in ("monday/deep.tiff", "turned.tiff"):
        np.testing.assert_allclose(features[other], features["plain.png"], atol=1e-5)
    assert "left out: torn.png" in printed
    assert "1 of 3 images: 16-bit grey scaled to 8 bits" in printed
    assert "1 of 3 images: turned as its EXIF orientation says" in printed


def test_features_are_the_mean_of_the_views_asked_for(trained, run, folder, tmp_path):
    found = {}
    for views in (1, 2):
        command = ["embed", "--model", trained, folder, f"--test-time-views={views}"]
        _, error, status = run(*command, "--output", tmp_path / "out.csv")
        assert status == 0, error
        found[views] = rows(tmp_path / "out.csv")["plain.png"]
    assert found[1].keys() == found[2].keys()
    assert found[1] != found[2]


def test_without_a_spacing_there_is_no_age(trained, run, folder, tmp_path):
    command = ["embed", "--model", trained, folder, "--output", tmp_path / "out.csv"]
    printed, error, status = run(*command)
    assert status == 0, error
    assert "no ages: no pixel spacing is known" in printed
    assert "ga_days" not in rows(tmp_path / "out.csv")["plain.png"]
    _, error, status = run(*command, "--pixel-spacing-mm=150")
    assert status == 2
    assert "--pixel-spacing-mm: pixel_spacing_mm is 150, outside 0.005 to 5" in error
