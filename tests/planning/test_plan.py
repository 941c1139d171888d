"""Plans of a tiny model on simulated devices, and on a TPU slice where its compiler is there."""

import importlib.util
import json
import math
import pathlib

import jax
import pytest

from fetalclip_jax import cli
from fetalclip_jax.config import parse
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.planning import chips, compiled, estimate, libtpu, plan, search, store, terminal
from fetalclip_jax.training import program
from tests.tiny import tiny_experiment

EXPERIMENT = """
from tests.tiny import tiny_experiment

def get_config():
    config = tiny_experiment()
    config.train.ema_decay = 0.9
    return config
"""


@pytest.fixture(scope="module")
def config():
    config = tiny_experiment().unlock()
    config.mesh.fsdp = 2
    config.train.update({"global_batch_size": 32, "micro_batches": 2, "ema_decay": 0.9})
    config.loss.block_size = 2
    return config.lock()


@pytest.fixture(scope="module")
def step(config):
    return compiled.compile_step(config, jax.devices())


@pytest.fixture(scope="module")
def planned(config, step):
    return plan.read(config, step, store.Target(None, 8), None)


def test_memory_by_kind_is_what_the_state_takes(config, planned):
    mesh = make_mesh(**config.mesh)
    built = program.build(config, mesh)
    state = jax.tree.map(lambda leaf: leaf, built.new_state())

    def on_a_device(tree):
        device = jax.devices()[3]
        return sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(tree)
            for shard in leaf.addressable_shards
            if shard.device == device
        )

    assert planned.memory["parameters"] == on_a_device(state.params)
    assert planned.memory["ema"] == on_a_device(state.ema)
    assert planned.memory["optimiser"] == on_a_device(state.opt_state)
    assert planned.memory["gradients"] == planned.memory["parameters"]
    side, length = config.model.vision_cfg.image_size, config.model.text_cfg.context_length
    assert planned.memory["batch"] == 4 * (3 * side**2 + 4 * length + 2 * 4 + 4)


def test_the_kinds_add_up_to_what_the_compiler_said(planned, step):
    kinds = {name: size for name, size in planned.memory.items() if name != "total"}
    assert sum(kinds.values()) == planned.memory["total"] == sum(step.memory.values())
    assert planned.memory["activations"] > 0
    assert planned.fits is None
    assert planned.mfu is None


def test_a_gradient_cache_computes_the_forward_pass_again(config, planned):
    again = planned.device_flops * 8 / planned.model_flops
    # Four thirds, less most of the last of three blocks, whose tokens nobody reads; with the parts
    # of the batch counted once it would be half of this.
    assert 0.8 < again < 1.33


def test_what_parameters_send_goes_along_their_axes(planned):
    along = {name.split()[0] for name in planned.sent}
    assert "data" in along
    assert "fsdp" in along
    assert collective_bytes(planned, "data+fsdp all-gather") >= 32 * 12 * 4 * 7 // 8  # texts


def collective_bytes(planned, name):
    return planned.sent.get(name, 0)


def test_parameters_that_are_held_have_no_gradients(config):
    held = config.copy_and_resolve_references().unlock()
    held.optimizer.learning_rate_factors = (("visual/.*", 0.0),)
    mesh = make_mesh(**held.mesh)
    built = program.build(held, mesh)
    kinds = compiled._kinds(held, built.abstract, {})
    text = {name: leaf for name, leaf in built.abstract.params.items() if name != "visual"}
    assert kinds["gradients"] == compiled._bytes(text)


def test_time_is_that_of_the_chip(config, step):
    topology = chips.topology("v5e:2x4")
    found = plan.read(config, step, store.Target(topology, 8), topology)
    sent = sum(found.sent.values())
    assert found.time.links == pytest.approx(sent / 200e9)
    assert found.time.memory == pytest.approx(found.traffic / 819e9)
    assert found.time.compute >= found.device_flops / 197e12
    assert found.time.bound == max(found.time.compute, found.time.memory, found.time.links)
    assert found.mfu == pytest.approx(found.model_flops / 8 / 197e12 / found.time.bound)
    assert found.fits
    assert "fits" in terminal.headline(found)


def test_a_card_is_planned_on_a_cpu_and_said_so(config, step):
    card = chips.topology("L4")
    assert plan.target_of(card, 5) == store.Target(None, 1)
    found = plan.read(config, step, store.Target(None, 1), card)
    assert found.time.links == 0
    assert any("compiled for a CPU in the place of the L4" in note for note in found.notes)


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (30.50G) exceeds available HBM (15.75G)",
            (30.5, 15.75),
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 20.25G of 15.75G hbm. Exceeded hbm capacity by 4.50G.",
            (20.25, 15.75),
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_a_compiler_that_lacks_memory_says_how_much(message, needed):
    found = compiled._needed(message)
    assert found == (needed and tuple(round(gib * 2**30) for gib in needed))


def test_a_step_that_does_not_fit_is_told_with_what_to_change(config, step):
    topology = chips.topology("v5e:2x4")
    refused = compiled.Compiled(step.mesh, step.kinds, {}, (40 * 2**30, 15 * 2**30), "")
    found = plan.read(config, refused, store.Target(topology, 8), topology)
    assert found.fits is False
    assert found.mfu is None
    assert "DOES NOT FIT, 40.00 of 15 GiB" in terminal.summary(found)
    assert any("--config.compute.remat=full" in line for line in terminal.advice(found))
    assert any("--config.train.micro_batches=4" in line for line in terminal.advice(found))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """`fetalclip plan` of a tiny experiment, with a store of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    experiment = tmp_path / "tiny.py"
    experiment.write_text(EXPERIMENT)

    def run(*arguments):
        status = cli.main(["plan", "--config", str(experiment), *map(str, arguments)])
        printed = capsys.readouterr()
        return printed.out, printed.err, status

    return run


def test_the_command_plans_once_and_remembers(run, tmp_path, monkeypatch):
    printed, _, status = run("--devices", 2, "--output", tmp_path / "plan.json")
    assert status == 0
    assert printed.startswith("2 simulated devices (data 2): ")
    assert "no published peak" in printed
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["mesh"] == {"data": 2, "fsdp": 1, "tensor": 1}
    assert found["memory"]["ema"] == found["memory"]["parameters"]

    def refuse(*_, **__):
        raise AssertionError("compiled again")

    monkeypatch.setattr(store, "_compile", refuse)
    assert run("--devices", 2)[0] == printed
    # What a step does not depend on is not asked for.
    assert run("--devices", 2, "--config.data.root=elsewhere")[0] == printed
    with pytest.raises(AssertionError, match="compiled again"):
        run("--devices", 2, "--config.train.global_batch_size=16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--topology=v5e:3x7"],
            "--topology v5e:3x7 is not known; there are v5e and v6e with :2x2",
        ),
        (["--topology=v9:2x2"], "A10, L4, RTX4090, A100, H100, H200 (one card)"),
        (["--topology=H100:8"], "--topology H100:8 is not known"),
        (["--devices=0"], "--devices 0 is not 1 or more"),
        (["--devices=4", "--search"], "--search compares with a chip's peaks: give --topology"),
        (["--topology=v5e:4x4", "--search", "--compiles=0"], "--compiles 0 is not 1 or more"),
        (["--devices=3"], "config.train.global_batch_size=8 is not a multiple of the 3 devices"),
    ],
)
def test_what_cannot_be_planned_is_named(run, arguments, message):
    _, error, status = run(*arguments)
    assert status == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_another_libtpu_than_jax_asks_for_is_refused(monkeypatch):
    asked = libtpu.asked_version()
    monkeypatch.setattr(libtpu, "version", lambda: None)
    with pytest.raises(ValueError, match=r"libtpu, which is not installed; pip install 'libtpu=="):
        libtpu.check()
    monkeypatch.setattr(libtpu, "version", lambda: "0.0.1")
    with pytest.raises(ValueError, match=r"libtpu 0.0.1 is installed, and jax .* asks for"):
        libtpu.check()
    right = asked.replace("*", "1")
    monkeypatch.setattr(libtpu, "version", lambda: right)
    assert libtpu.check() == right


def fake(fits, mfu):
    """What `plan.make` gives, decided by settings alone."""

    def make(config, topology):
        settings = plan.settings(config)
        asked = (settings["config.mesh.fsdp"], settings["config.compute.remat"])
        parts = settings["config.train.micro_batches"]
        good = fits(*asked, parts)
        share = mfu(*asked, parts) if good else None
        time = plan.Time(1e-9 / share, 0.0, 0.0) if good else None
        memory = {"total": 2**30 * (1 if good else 99 // parts)}
        empty = ([],) * 4
        mesh = {"data": 1, "fsdp": asked[0], "tensor": 1}
        chip = str(topology.chip.name)
        sizes = (memory, 1, 1, 1, {}, time, share)
        return plan.Plan(str(topology), chip, mesh, settings, good, 2**34, *sizes, *empty)

    return make


@pytest.fixture(scope="module")
def sizes(config):
    return estimate.sizes(config)


@pytest.fixture
def wide(config, sizes, monkeypatch):
    monkeypatch.setattr(estimate, "sizes", lambda _: sizes)
    changed = config.copy_and_resolve_references().unlock()
    changed.train.global_batch_size = 256
    return changed.lock()


def test_the_estimate_knows_what_policies_keep(sizes):
    kept = sizes.per_example
    assert 0 < kept["full"] < kept["dots"] < kept["none"]
    assert sizes.trained == sizes.params


def test_the_estimate_of_adapters_counts_no_gradients_of_what_they_adapt(config, sizes):
    adapted = config.copy_and_resolve_references().unlock()
    adapted.lora.update({"targets": ("(visual|text)/transformer/.*/(query|value)",), "rank": 2})
    found = estimate.sizes(adapted)
    assert found.params == sizes.params + found.trained
    assert found.trained < sizes.trained / 5
    # Two copies of all parameters, four of what is trained, in two shards; two examples at a time.
    state = (4 * (sizes.trained - found.trained) - 2 * found.trained) // 2
    kept = 2 * (sizes.per_example["none"] - found.per_example["none"])
    assert kept > 0
    less = estimate.memory(config, sizes, 8) - estimate.memory(adapted, found, 8)
    assert less == state + kept


def test_the_search_names_the_best_that_fits(wide):
    said = []
    make = fake(lambda *_: True, lambda fsdp, remat, parts: 0.9 if remat == "dots" else 1e-6)
    found = search.best(wide, chips.topology("v5e:2x2"), compiles=9, make=make, say=said.append)
    assert found.settings["config.compute.remat"] == "dots"
    assert len(said) <= 9
    assert said[0].startswith("1/9 fsdp ")
    # With a bound that nothing left could beat it stops.
    said.clear()
    make = fake(lambda *_: True, lambda *_: 1e3)
    search.best(wide, chips.topology("v5e:2x2"), compiles=9, make=make, say=said.append)
    assert len(said) == 1


def test_the_search_halves_what_does_not_fit(wide):
    tried = []

    def fits(fsdp, remat, parts):
        tried.append(parts)
        return parts >= 8

    found = search.best(
        wide, chips.topology("v5e:2x2"), compiles=60, make=fake(fits, lambda *_: 0.5), say=str
    )
    assert found.fits
    assert found.settings["config.train.micro_batches"] == 8
    never = fake(lambda *_: False, lambda *_: 0.5)
    assert (
        search.best(wide, chips.topology("v5e:2x2"), compiles=2, make=never, say=str).fits is False
    )


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, 227 MB, is in the extra `plan` alone",
)
def test_a_real_tpu_slice_compiles(tmp_path):
    config = tiny_experiment().unlock()
    config.model.vision_cfg.layers = config.model.text_cfg.layers = 2
    config.compute.dtype = "bfloat16"
    config.train.global_batch_size = 64
    config.loss.block_size = 8
    found = plan.make(config, chips.topology("v5e:2x2"), folder=tmp_path)
    assert found.fits
    assert found.mesh == {"data": 4, "fsdp": 1, "tensor": 1}
    # Of two blocks the last has one token's queries, output and MLP alone.
    assert 0.5 < found.device_flops * 4 / found.model_flops < 0.7
    assert {name.split()[0] for name in found.sent} == {"data"}
    assert not found.all_pairs
    assert 0 < found.mfu < 1
    assert math.isfinite(found.time.sum)


VITL14 = pathlib.Path(__file__).parents[2] / "configs" / "fetalclip_vitl14.py"


@pytest.mark.parametrize(
    ("argument", "batch", "micro_batches"),
    [
        ("", 1024, 1),
        (":chips=16,batch=32768", 32768, 128),
        (":chips=256,batch=32768,chip=v5p", 32768, 1),
    ],
)
def test_the_proxy_recipe_takes_chips_and_batch(argument, batch, micro_batches):
    config = parse(f"{VITL14}{argument}")
    assert config.train.global_batch_size == batch
    assert config.train.micro_batches == micro_batches
    assert config.train.steps == 20 * 210_035 // batch  # twenty epochs
    assert config.optimizer.learning_rate == 1e-5
    assert config.optimizer.warmup_steps < config.train.steps


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("chips=7", "batch=1024 is not a multiple of chips=7"),
        ("chips=0", "chips=0 is not a number from 1"),
        ("chip=v9", "chip=v9 is not one of v5e, v6e, v5p"),
        ("cores=4", "'cores' is not one of chips=N, chip=NAME and batch=N"),
    ],
)
def test_a_mistake_in_chips_and_batch_is_named(argument, message):
    with pytest.raises(ValueError, match=message):
        parse(f"{VITL14}:{argument}")
