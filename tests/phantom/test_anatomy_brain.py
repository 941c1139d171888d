import numpy as np
import pytest

from fetalclip_jax.labels import BRAIN_PLANES
from fetalclip_jax.phantom import growth
from fetalclip_jax.phantom.anatomy_brain import BUILDERS
from fetalclip_jax.phantom.scene import Interface, Region, Scene
from fetalclip_jax.phantom.shapes import Pose

COUNT = 40


@pytest.fixture(scope="module")
def scenes():
    """Plane -> (fetus, scene) of the same fetuses, foreheads to the right of the origin."""
    drawn = {}
    for plane in BRAIN_PLANES:
        rng = np.random.default_rng(0)
        fetuses = [growth.draw_fetus(rng) for _ in range(COUNT)]
        drawn[plane] = []
        for fetus in fetuses:
            scene = Scene()
            BUILDERS[plane](scene, rng, fetus, Pose((0.0, 0.0)))
            drawn[plane].append((fetus, scene))
    return drawn


def interfaces(scene):
    return [layer for layer in scene.layers if isinstance(layer, Interface)]


def test_only_cerebellar_planes_are_full_of_short_echoes_behind(scenes):
    def behind(plane):
        """Median share of the lines that lie in the back half."""
        shares = []
        for fetus, scene in scenes[plane]:
            middles = np.array([line.points[:, 0].mean() for line in interfaces(scene)])
            shares.append((middles < -0.1 * fetus.head_semi_axes_mm[0]).mean())
        return np.median(shares)

    assert behind("trans-cerebellum") > 0.55
    assert max(behind("trans-thalamic"), behind("trans-ventricular")) < 0.5


def test_only_cerebellar_planes_may_have_a_skull_that_is_open_at_the_back(scenes):
    opened = {}
    for plane in BRAIN_PLANES:
        opened[plane] = 0
        for fetus, scene in scenes[plane]:
            a = fetus.head_semi_axes_mm[0]
            bone = next(line for line in interfaces(scene) if np.ptp(line.points[:, 0]) > 1.5 * a)
            ends_behind = bone.points[[0, -1], 0].max() < 0
            assert bone.closed != ends_behind
            opened[plane] += not bone.closed
    assert 0.4 * COUNT < opened.pop("trans-cerebellum") < 0.8 * COUNT
    assert set(opened.values()) == {0}


def test_thalami_are_no_holes(scenes):
    """What is filled around the centre of a trans-thalamic plane is tissue, and the head's."""
    for fetus, scene in scenes["trans-thalamic"]:
        a, b = fetus.head_semi_axes_mm
        for layer in scene.layers:
            if isinstance(layer, Region):
                x, y = layer.points.mean(axis=0)
                if abs(x) < 0.1 * a and 0.02 * b < abs(y) < 0.4 * b:
                    assert layer.echo_db > fetus.brain_db - 11


def test_what_lies_in_a_late_head_is_darker():
    early, late = (growth.maturity(7 * weeks) for weeks in (16, 38))
    assert (early, late) == (0.0, 1.0)
    rng = np.random.default_rng(1)
    fetuses = [growth.draw_fetus(rng) for _ in range(400)]
    ages = np.array([fetus.ga_days for fetus in fetuses])
    levels = np.array([fetus.brain_db for fetus in fetuses])
    assert np.corrcoef(ages, levels)[0, 1] < -0.5
