"""Are the models here the same functions as open_clip's and transformers'?

    pip install -e '.[parity]'
    python benchmarks/parity.py                 # the table: full-size models, about ten minutes
    python benchmarks/parity.py --golden        # rewrites the tests' golden files as well

    python benchmarks/parity.py --images HC18/training_set      # bfloat16 on real images as well

Random weights of each configuration go through a `.pt` file into this package. Features are
compared by the norm of the difference over the norm, gradients of the contrastive loss the same
way for each parameter; everything is float32 on the CPU. Then a model goes out again, to open_clip
(`strict=True`) and to transformers.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
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
import transformers

from fetalclip_jax.losses import sigmoid_contrastive, softmax_contrastive
from fetalclip_jax.models.clip import CLIP, unit_length
from fetalclip_jax.models.preprocess import preprocess
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import export

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.weights import drawn  # noqa: E402 (from the checkout, not installed)

GOLDEN = ROOT / "tests" / "weights" / "golden"
GOLDEN_LOSSES = ROOT / "tests" / "losses" / "open_clip.json"
_JSON = "open_clip_config.json"
FULL = ("FetalCLIP", "ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")


def drawn_model(name: str) -> torch.nn.Module:
    """open_clip's model with the weights that the ordinary tests draw again."""
    model = open_clip.model.CLIP(**drawn.fields(name)).eval()
    shapes = {k: tuple(p.shape) for k, p in model.named_parameters()}
    weights = {k: torch.from_numpy(v) for k, v in drawn.weights(shapes).items()}
    model.load_state_dict(weights, strict=False)
    return model


def torch_results(model, images, tokens):
    """Image features, text features, and the gradients of the loss by tensor name."""
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    image = model.encode_image(pixels)
    text = model.encode_text(torch.from_numpy(tokens))
    unit = [torch.nn.functional.normalize(features, dim=-1) for features in (image, text)]
    scale, bias = model.logit_scale.exp(), model.logit_bias
    model.zero_grad()
    if bias is None:
        open_clip.loss.ClipLoss()(*unit, scale).backward()
    else:
        open_clip.loss.SigLipLoss()(*unit, scale, bias).backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    return image.detach().numpy(), text.detach().numpy(), gradients


def our_results(model: CLIP, weights, images, tokens):
    """The same of a model of this package; gradients under open_clip's names."""

    def loss(weights, image, text):
        features = model.apply({"params": weights}, image, method=CLIP.encode_image)
        others = model.apply({"params": weights}, text, method=CLIP.encode_text)
        unit = unit_length(features), unit_length(others)
        scale = jax.numpy.exp(weights["logit_scale"])
        if "logit_bias" in weights:
            value = sigmoid_contrastive(*unit, scale, weights["logit_bias"])[0]
        else:
            value = softmax_contrastive(*unit, scale)[0]
        return value, (features, others)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (image, text)), gradients = run(weights, images, tokens.astype(np.int32))
    named = export.to_tensors(jax.device_get(gradients), model.config, "open_clip")
    return np.asarray(image), np.asarray(text), named


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Norm of the difference over the norm."""
    theirs = np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))


def compare(name: str, torch_model: torch.nn.Module, fields: dict) -> None:
    """Prints a row of the table."""
    start = time.time()
    images, tokens = drawn.inputs(fields)
    config = CLIPConfig.from_dict(fields)
    weights = reference.import_weights(torch_model, config)
    image, text, gradients = torch_results(torch_model, images, tokens)
    count = sum(p.numel() for p in torch_model.parameters())
    del torch_model
    gc.collect()
    our_image, our_text, our_gradients = our_results(CLIP(config), weights, images, tokens)
    errors = {n: difference(our_gradients[n], gradients[n]) for n in gradients}
    worst = max(errors, key=errors.get)
    print(
        f"| {name} | {count:,} | {difference(our_image, image):.1e} | "
        f"{difference(our_text, text):.1e} | {errors[worst]:.1e} ({worst}) "
        f"| {time.time() - start:.0f} |",
        flush=True,
    )


def compare_exports(name: str) -> None:
    """Prints how far exported weights, in the other libraries, are from the model here."""
    fields = reference.fields(name)
    config = CLIPConfig.from_dict(fields)
    weights = reference.import_weights(reference.model(fields), config)
    images, tokens = drawn.inputs(fields)
    image, text, _ = our_results(CLIP(config), weights, images, tokens)
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = export.export(pathlib.Path(folder) / "a", weights, config, "open_clip")
        made = open_clip.model.CLIP(**json.loads((path.parent / _JSON).read_text())["model_cfg"])
        made.eval().load_state_dict(safetensors.torch.load_file(path), strict=True)
        found = made.encode_image(pixels), made.encode_text(torch.from_numpy(tokens))
        print(
            f"| {name}, exported to open_clip | | {difference(image, found[0]):.1e} | "
            f"{difference(text, found[1]):.1e} | strict=True | |",
            flush=True,
        )
        path = export.export(pathlib.Path(folder) / "b", weights, config, "transformers")
        made = transformers.CLIPModel.from_pretrained(path.parent).eval()
        theirs = made.get_image_features(pixels), made.get_text_features(torch.from_numpy(tokens))
        # Newer versions hand over the towers' whole output.
        found = [getattr(x, "pooler_output", x) for x in theirs]
        print(
            f"| {name}, exported to transformers | | {difference(image, found[0]):.1e} | "
            f"{difference(text, found[1]):.1e} | | |",
            flush=True,
        )


def compare_bfloat16(name: str, folder: pathlib.Path) -> None:
    """Prints the cosine of bfloat16 and float32 features of 64 images."""
    fields = reference.fields(name)
    config = CLIPConfig.from_dict(fields)
    weights = reference.import_weights(reference.model(fields), config)
    paths = sorted(p for p in folder.glob("*.png") if "Annotation" not in p.name)[:64]
    size = config.vision_cfg.image_size
    batches = np.stack([preprocess(p, size) for p in paths]).reshape(-1, 8, size, size, 3)
    features = []
    for dtype in (jax.numpy.float32, jax.numpy.bfloat16):
        model = CLIP(config, dtype=dtype)
        run = jax.jit(lambda w, x, m=model: m.apply({"params": w}, x, method=CLIP.encode_image))
        features.append(np.concatenate([unit_length(run(weights, x)) for x in batches]))
    cosine = (features[0] * features[1]).sum(axis=1)
    print(f"{name}, bfloat16: cosine of {len(paths)} real images at least {cosine.min():.6f}")


def write_golden(name: str) -> None:
    """What open_clip computes of a tiny model whose weights and inputs are drawn from seeds."""
    images, tokens = drawn.inputs(drawn.fields(name))
    image, text, gradients = torch_results(drawn_model(name), images, tokens)
    along = {k: float((g * drawn.probe_direction(k, g.shape)).sum()) for k, g in gradients.items()}
    norms = {k: float(np.linalg.norm(g)) for k, g in gradients.items()}
    golden = {
        "image_features": image.tolist(),
        "text_features": text.tolist(),
        "gradient_norms": norms,
        "gradients_along_directions": along,
    }
    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / f"{name}.json").write_text(json.dumps(golden) + "\n")


def write_golden_losses() -> None:
    """open_clip's two losses of the same features, with all their gradients."""
    rng = np.random.RandomState(0)
    drawn_features = torch.from_numpy(rng.standard_normal((2, 12, 6)).astype(np.float32))
    golden = {"scale": 14.0, "bias": -3.0}
    losses = {"softmax": open_clip.loss.ClipLoss(), "sigmoid": open_clip.loss.SigLipLoss()}
    for name, loss in losses.items():
        image, text = torch.nn.functional.normalize(drawn_features, dim=-1)
        golden |= {"image": image.tolist(), "text": text.tolist()}
        takes = {"image": image, "text": text, "scale": torch.tensor(golden["scale"])}
        if name == "sigmoid":
            takes["bias"] = torch.tensor(golden["bias"])
        takes = {key: value.clone().requires_grad_() for key, value in takes.items()}
        value = loss(*takes.values())
        value.backward()
        gradients = {key: taken.grad.tolist() for key, taken in takes.items()}
        golden[name] = {"loss": value.item(), "gradients": gradients}
    GOLDEN_LOSSES.write_text(json.dumps(golden) + "\n")


def write_golden_positions() -> None:
    """Positional embeddings as open_clip resizes them."""
    golden = {}
    rng = np.random.RandomState(0)
    for key, tokens, size in (("image_smaller", 50, 24), ("image_larger", 17, 40)):
        table = rng.standard_normal((tokens, 3)).astype(np.float32)
        model = open_clip.model.CLIP(**(drawn.fields("plain") | {"embed_dim": 8}))
        model.visual.grid_size = (size // 8, size // 8)
        state = {"visual.positional_embedding": torch.from_numpy(table)}
        open_clip.model.resize_pos_embed(state, model)
        resized = state["visual.positional_embedding"].numpy()
        golden[key] = {"table": table.tolist(), "resized": resized.tolist()}
    table = rng.standard_normal((7, 32)).astype(np.float32)
    model = open_clip.model.CLIP(**drawn.fields("plain"))
    state = {"positional_embedding": torch.from_numpy(table)}
    open_clip.model.resize_text_pos_embed(state, model)
    resized = state["positional_embedding"].numpy()
    golden["text"] = {"table": table.tolist(), "resized": resized.tolist()}
    (GOLDEN / "positions.json").write_text(json.dumps(golden) + "\n")


def write_golden_file() -> None:
    """A checkpoint as torch saves it: every data type, views, parameters, an optimiser beside."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3)
    grid = torch.arange(24.0).reshape(6, 4)
    state = torch.nn.Sequential(layer, torch.nn.BatchNorm1d(3)).state_dict()
    state |= {f"parameter.{name}": value for name, value in layer.named_parameters()}
    state |= {"grid": grid, "transposed": grid.T, "part": grid[2:4, 1:3], "number": grid[1, 2]}
    state |= {"half": grid.half(), "long": grid.long(), "bool": grid > 4, "brain": grid.bfloat16()}
    state |= {"double": grid.double(), "wide": grid.to(torch.uint32), "empty": torch.zeros(0, 3)}
    state |= {"expanded": grid[0].expand(3, 4)}
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    content = {"epoch": 1, "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save(content, GOLDEN / "torch_save.pt")
    values = {
        name: (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
        for name, value in state.items()
    }
    np.savez_compressed(GOLDEN / "torch_save.npz", **values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", action="store_true", help="rewrite the tests' golden files")
    parser.add_argument("--models", nargs="*", default=FULL, help="open_clip or preset names")
    parser.add_argument("--images", type=pathlib.Path, help="folder of .png, for bfloat16")
    arguments = parser.parse_args()
    if arguments.golden:
        for name in drawn.MODELS:
            write_golden(name)
        write_golden_losses()
        write_golden_positions()
        write_golden_file()
    print("| model | parameters | image features | text features | worst gradient | s |")
    print("|---|---|---|---|---|---|")
    for name in drawn.MODELS:
        compare(f"tiny, {name}", drawn_model(name), drawn.fields(name))
    for name in arguments.models:
        fields = reference.fields(name)
        compare(name, reference.model(fields), fields)
    for name in arguments.models[:2]:
        compare_exports(name)
    if arguments.images:
        compare_bfloat16(arguments.models[0], arguments.images)


if __name__ == "__main__":
    main()
