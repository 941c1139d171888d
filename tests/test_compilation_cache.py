import os
import pathlib
import subprocess
import sys

import pytest

from fetalclip_jax import compilation_cache

VARIABLE = "JAX_COMPILATION_CACHE_DIR"

PROGRAM = """
import fetalclip_jax.compilation_cache
fetalclip_jax.compilation_cache.enable()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((64, 64))).block_until_ready()
print(events.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_second_process_finds_what_the_first_compiled(home):
    hits = [
        int(subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert hits[0] == 0
    assert hits[1] > 0
    assert list((home / "fetalclip_jax" / "compiled").glob("*/*"))


def test_a_folder_that_was_chosen_stays_and_nothing_turns_it_off(home, monkeypatch):
    for chosen in ("/somewhere", ""):
        monkeypatch.setenv(VARIABLE, chosen)
        compilation_cache.enable()
        assert os.environ[VARIABLE] == chosen


def test_processors_of_other_kinds_get_other_folders(home, monkeypatch):
    def read_as(text):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: text)
        return compilation_cache._processor()

    older, newer = (f"processor: 0\nflags : {flags}\n" for flags in ("sse avx2", "sse avx512"))
    assert read_as(older) == read_as(older.replace(": 0", ": 1"))
    assert read_as(older) != read_as(newer)
