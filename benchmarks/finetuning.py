"""Does LoRA on a published architecture change what it should, and does it leave merged?

    pip install -e '.[parity]'
    python benchmarks/finetuning.py [--model ViT-B-16]

Random weights of open_clip go through a `.pt` file; `fetalclip_jax.training.loop` trains adapters
of them for a few steps on a few phantom images. Compared are the parameters before and after, the
features of the run's own adapters with those of the merged model, and the merged export in
open_clip (`strict=True`). Norms of differences are over the norm.
"""

import argparse
import os
import pathlib
import tempfile
import time

# float32 on an accelerator is not float32 by default.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import open_clip
import reference  # beside this file
import safetensors.torch
import torch

import fetalclip_jax
from fetalclip_jax.config import build_model, default_config
from fetalclip_jax.models import lora, presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.training import loop

_STEPS, _BATCH = 3, 4


def experiment(name: str, weights: pathlib.Path):
    config = default_config()
    config.init_from, config.init_config, config.init_model = str(weights), name, True
    config.lora.update(
        {"targets": ("(visual|text)/.*/(query|value)", "visual/.*/mlp_out"), "rank": 8}
    )
    config.data.phantom.update({"train_images": 12, "pool_images": 12, "test_images": 12})
    config.train.update({"steps": _STEPS, "global_batch_size": _BATCH, "checkpoint_every": _STEPS})
    config.optimizer.update({"learning_rate": 0.01, "warmup_steps": 0})
    return config


def difference(ours, theirs) -> float:
    theirs = np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def changed(before, after) -> dict[str, str]:
    """Parameters that are not bitwise the same; of queries, keys and values which."""
    found = {}
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        moved = np.asarray(old) != np.asarray(new)
        if moved.any():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            parts = moved.any(axis=(0, 1, 3, 4)) if "/qkv/" in name else [True]
            found[name] = f"{moved.mean():.0%} of it, parts {np.flatnonzero(parts).tolist()}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-16", help="open_clip's name, a preset here")
    name = parser.parse_args().model
    torch_model = reference.model(reference.fields(name))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        weights = folder / "weights.pt"
        torch.save(torch_model.state_dict(), weights)
        start = time.time()
        config = experiment(name, weights)
        final = loop.train(config, folder / "run")
        print(f"{name}: {_STEPS} steps of {_BATCH} in {time.time() - start:.0f} s")
        base, merged = fetalclip_jax.load(weights, name), fetalclip_jax.load(folder / "run")
        for parameter, share in changed(base.params, merged.params).items():
            print(f"changed: {parameter} ({share})")
        print(f"adapters: {sum(x.size for x in jax.tree.leaves(final.params['lora'])):,}")

        size = base.config.vision_cfg.image_size
        images = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
        tokens = base.tokenize(["A fetal head.", "A femur at 20 weeks."])
        config.model = presets.get(name).to_dict()
        module = build_model(config)
        variables = lora.collections(module, final.params)
        ours = merged.encode_image(images), merged.encode_text(tokens)
        unmerged = (
            module.apply(variables, images, method=CLIP.encode_image),
            module.apply(variables, tokens, method=CLIP.encode_text),
        )
        path = merged.export(folder / "exported")
        made = open_clip.model.CLIP(**reference.fields(name)).eval()
        made.load_state_dict(safetensors.torch.load_file(path), strict=True)
        with torch.no_grad():
            pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
            theirs = made.encode_image(pixels), made.encode_text(torch.from_numpy(tokens).long())
        before = base.encode_image(images), base.encode_text(tokens)
        for what, others in (
            ("the base", before),
            ("the adapters, unmerged", unmerged),
            ("open_clip, strict=True", theirs),
        ):
            image, text = map(difference, ours, others)
            print(f"merged against {what}: image {image:.1e}, text {text:.1e}")


if __name__ == "__main__":
    main()
