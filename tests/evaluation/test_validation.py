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
    """An experiment with studies, its folder, its tokenizer, and two sets of parameters."""
    config = tiny_experiment()
    config.train.studies = ("zero_shot.planes", "zero_shot.brain")
    workdir = tmp_path_factory.mktemp("run")
    tokenizer = inputs.open_tokenizer(config, workdir)
    module = build_model(config)
    init = jax.jit(lambda seed: state.initial_params(module, jax.random.key(seed)))
    params = [jax.tree.map(np.asarray, nn.meta.unbox(init(seed))) for seed in (0, 1)]
    return config, workdir, tokenizer, module, params


def test_results_are_those_of_the_validation_patients_as_the_data_set_has_them(run):
    config, workdir, tokenizer, module, params = run
    measure = validation.judge(config, workdir, tokenizer)
    source = inputs.source(config, "pool")
    found = []
    for one in params:
        found.append(measure(one))
        model = Model(module, one, tokenizer)
        store = features.encode(
            model, source, fingerprint={"model": model.fingerprint}, progress=False
        )
        for name in config.train.studies:
            result = studies.create(name, resamples=1).run({"images": store}, model)
            expected = {f"study/{name}/{k}": v.value for k, v in result.metrics.items()}
            assert expected == {k: v for k, v in found[-1].items() if name in k}
    assert found[0].keys() >= {"study/zero_shot.planes/macro_f1", "study/zero_shot.brain/macro_f1"}
    assert found[0] != found[1]


def test_patients_of_the_test_are_never_looked_at(run, monkeypatch):
    config, workdir, tokenizer, _, params = run
    opened = []
    original = inputs.source
    monkeypatch.setattr(
        inputs, "source", lambda config, split: opened.append(split) or original(config, split)
    )
    validation.judge(config, workdir, tokenizer)(params[0])
    assert set(opened) == {"pool"}


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
