"""Studies while training: what they say is what an evaluation of the validation patients says."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from fetalclip_jax.config import build_model
from fetalclip_jax.evaluation import features, studies, validation
from fetalclip_jax.model import Model
from fetalclip_jax.training import inputs, state
from tests.tiny import tiny_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An experiment with a study, its folder, its tokenizer, and two sets of parameters."""
    config = tiny_experiment()
    config.train.studies = ("zero_shot.planes",)
    workdir = tmp_path_factory.mktemp("run")
    tokenizer = inputs.open_tokenizer(config, workdir)
    module = build_model(config)
    init = jax.jit(lambda seed: state.initial_params(module, jax.random.key(seed)))
    params = [jax.tree.map(np.asarray, nn.meta.unbox(init(seed))) for seed in (0, 1)]
    return config, workdir, tokenizer, module, params


def test_results_are_those_of_the_validation_patients_as_the_data_set_has_them(run, monkeypatch):
    config, workdir, tokenizer, module, params = run
    opened, source = [], inputs.source
    monkeypatch.setattr(inputs, "source", lambda c, split: opened.append(split) or source(c, split))
    measure = validation.judge(config, workdir, tokenizer)
    found = [measure(one) for one in params]
    assert set(opened) == {"pool"}  # never the patients of the test
    # The second was judged by what was compiled for the first.
    model = Model(module, params[1], tokenizer)
    store = features.encode(
        model,
        source(config, "pool"),
        fingerprint={"model": model.fingerprint},
        progress=False,
    )
    result = studies.create("zero_shot.planes", resamples=1).run({"images": store}, model)
    assert found[1] == {
        f"study/zero_shot.planes/{name}": estimate.value
        for name, estimate in result.metrics.items()
    }
    assert found[0].keys() == found[1].keys() >= {"study/zero_shot.planes/macro_f1"}


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("probe.planes", r"probe\.planes needs images to 'fit' .* phantom pool is all"),
        ("few_shot.planes", "needs images to 'fit'"),
        ("zero_shot.plane", "zero_shot.plane"),
        ("accuracy", "study 'accuracy' is unknown"),
    ],
)
def test_what_the_validation_patients_cannot_serve_is_refused_at_the_start(run, study, message):
    config, workdir, tokenizer, *_ = run
    other = config.copy_and_resolve_references()
    other.train.studies = (study,)
    with pytest.raises(ValueError, match=message):
        validation.judge(other, workdir, tokenizer)


def test_what_the_data_set_does_not_know_is_named(hc18_folder, tmp_path, unchecked):
    config = tiny_experiment()
    config.data.source, config.data.root = "hc18", str(hc18_folder(patients=10))
    config.train.studies = ("zero_shot.brain",)
    with pytest.raises(ValueError, match="needs brain_plane, which hc18 validation does not know"):
        validation.judge(config, tmp_path, None)
