"""Is the segmentation decoder the same function as in PyTorch, and how fast is a step of it?

    pip install -e '.[parity]'
    python benchmarks/unetr.py                  # parity, then the speed of both sizes
    python benchmarks/unetr.py --parity         # parity alone, a minute
    python benchmarks/unetr.py --golden         # writes the golden file of the tests

The same decoder is built in plain PyTorch from its description, and takes over the parameters.
Compared are logits in training and in evaluation, running statistics, the Dice loss, and its
gradients with respect to all parameters, the image and the tokens, by the norm of the difference
over the norm (of each layer's kernel and bias together: the gradient of a bias that a batch
normalisation removes is 0 but for rounding). Both programs run in float64, which shows whether
they are the same function to many digits more than the 1e-5 that is asked for. In float32 the
gradients of either stray from those: where a ReLU is near 0, rounding decides on which side. The
table shows that distance for both.

A step is forward, backward and AdamW of 8 images, float32, on all cores. Steps of both programs
alternate, so that whatever else the machine does falls on both; wall-clock time is the median,
processor time the mean. PyTorch runs as one writes it (NCHW) and channels last, the faster of its
layouts where the tokens are wide.
"""

import argparse
import itertools
import os
import pathlib

# float32 on an accelerator is not float32 by default.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fetalclip_jax.losses.dice import dice_loss
from fetalclip_jax.models.unetr import UNETRDecoder

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "models" / "unetr_golden.npz"
TOLERANCE = 1e-5


class Block(nn.Sequential):
    """A separable convolution, doubling rows and columns before it or not."""

    def __init__(self, channels, width, doubling=False):
        layers = [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if doubling:
            layers.insert(0, nn.ConvTranspose2d(channels, channels, 2, stride=2, groups=channels))
        super().__init__(*layers)


def up(channels, width):
    return nn.Sequential(
        nn.ConvTranspose2d(channels, channels, 2, stride=2, groups=channels),
        nn.Conv2d(channels, width, 1),
    )


def blocks(*widths, doubling=False):
    return nn.Sequential(*(Block(a, b, doubling) for a, b in itertools.pairwise(widths)))


class TorchDecoder(nn.Module):
    """The decoder as one would write it in PyTorch, from the same description."""

    def __init__(self, width, classes, f=32):
        super().__init__()
        self.image = blocks(3, f, f)
        self.first_tap = blocks(width, 8 * f, 4 * f, 2 * f, doubling=True)
        self.second_tap = blocks(width, 8 * f, 4 * f, doubling=True)
        self.third_tap = blocks(width, 8 * f, doubling=True)
        self.fourth_tap = up(width, 8 * f)
        self.eighth = blocks(16 * f, 8 * f, 8 * f, 8 * f)
        self.eighth_up = up(8 * f, 4 * f)
        self.quarter = blocks(8 * f, 4 * f, 4 * f)
        self.quarter_up = up(4 * f, 2 * f)
        self.halves = blocks(4 * f, 2 * f, 2 * f)
        self.half_up = up(2 * f, f)
        self.full = blocks(2 * f, f, f)
        self.head = nn.Conv2d(f, classes, 1)

    def forward(self, images, tokens):
        """[B, 3, S, S] and four of [B, W, G, G] -> [B, classes, S, S]."""
        grid = images.shape[-1] // 16
        first, second, third, fourth = (
            functional.interpolate(one, (grid, grid), mode="bilinear", align_corners=False)
            for one in tokens
        )
        x = self.eighth(torch.cat([self.third_tap(third), self.fourth_tap(fourth)], 1))
        x = self.quarter(torch.cat([self.second_tap(second), self.eighth_up(x)], 1))
        x = self.halves(torch.cat([self.first_tap(first), self.quarter_up(x)], 1))
        x = self.full(torch.cat([self.image(images), self.half_up(x)], 1))
        return self.head(x)


def torch_dice_loss(logits, masks):
    """Smooth 0, eps 1e-7, over the batch; absent classes count as 0."""
    p, dims = functional.logsigmoid(logits).exp(), (0, 2, 3)
    dice = 2 * (p * masks).sum(dims) / (p + masks).sum(dims).clamp_min(1e-7)
    return ((1 - dice) * (masks.sum(dims) > 0)).mean()


def copied(module: TorchDecoder, value=lambda parameter: parameter) -> dict:
    """Parameters (or their gradients) and running statistics in the layout of the flax module."""
    variables = {"params": {}, "batch_stats": {}}

    def put(collection, name, **arrays):
        for part in name[:-1]:
            collection = collection.setdefault(part, {})
        collection[name[-1]] = {k: jnp.asarray(v.detach().numpy()) for k, v in arrays.items()}

    def put_layers(name, layers):
        norms = 0
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                continue
            weight, bias = value(layer.weight), value(layer.bias)
            if isinstance(layer, nn.BatchNorm2d):
                norms += 1
                path = (*name, f"norm_{norms}")
                put(variables["params"], path, scale=weight, bias=bias)
                statistics = {"mean": layer.running_mean, "variance": layer.running_var}
                put(variables["batch_stats"], path, **statistics)
            elif layer.groups > 1:
                part = "doubling" if isinstance(layer, nn.ConvTranspose2d) else "depthwise"
                kernel = weight[:, 0].permute(1, 2, 0)  # C 1 3 3 -> 3 3 C
                put(variables["params"], (*name, part), kernel=kernel, bias=bias)
            else:
                part = () if name == ("head",) else ("pointwise",)
                kernel = weight[:, :, 0, 0].T  # D C 1 1 -> C D
                put(variables["params"], (*name, *part), kernel=kernel, bias=bias)

    for theirs, child in module.named_children():
        ours = theirs.replace("halves", "half")
        if isinstance(child, nn.Conv2d):
            put_layers((ours,), [child])
        elif isinstance(child[0], Block):
            for number, block in enumerate(child, 1):
                put_layers((f"{ours}_{number}",), block)
        else:
            put_layers((ours,), child)
    return variables


def drawn(width, classes, size, grid, batch, f):
    """A PyTorch decoder whose statistics are not those of a new one, and inputs, NCHW."""
    torch.manual_seed(0)
    module = TorchDecoder(width, classes, f)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    images = torch.randn(batch, 3, size, size)
    tokens = [torch.randn(batch, width, grid, grid) for _ in range(4)]
    masks = (torch.rand(batch, classes, size, size) > 0.6).float()
    return module, images, tokens, masks


def torch_answers(module, images, tokens, masks):
    """Inputs as the flax module takes them, and what PyTorch makes of them."""
    nhwc = lambda one: one.detach().permute(0, 2, 3, 1).numpy()  # noqa: E731
    inputs = {
        "variables": copied(module),
        "images": nhwc(images),
        "tokens": np.stack([nhwc(one) for one in tokens]),
        "masks": nhwc(masks) > 0,
    }
    inputs = jax.tree.map(np.array, inputs)  # before PyTorch changes the statistics in place
    answers = {"evaluation_logits": nhwc(module.eval()(images, tokens))}
    leaves = [images, *tokens]
    for one in leaves:
        one.requires_grad_(True)
    logits = module.train()(images, tokens)
    loss = torch_dice_loss(logits, masks)
    loss.backward()
    answers |= {
        "training_logits": nhwc(logits),
        "loss": loss.detach().numpy(),
        "gradients": copied(module, lambda parameter: parameter.grad)["params"],
        "images_gradient": nhwc(images.grad),
        "tokens_gradient": np.stack([nhwc(one.grad) for one in tokens]),
        "batch_stats": copied(module)["batch_stats"],
    }
    return inputs, jax.tree.map(np.array, answers)


def flax_answers(inputs: dict, decoder: UNETRDecoder) -> dict:
    """The same numbers from the module here."""
    variables, masks = inputs["variables"], inputs["masks"]

    def loss_of(params, images, tokens):
        logits, updates = decoder.apply(
            variables | {"params": params}, images, tuple(tokens), True, mutable="batch_stats"
        )
        return dice_loss(logits, masks), (logits, updates)

    @jax.jit
    def all_of(*leaves):
        with_gradients = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
        evaluated = decoder.apply(variables, leaves[1], tuple(leaves[2]))
        return evaluated, with_gradients(*leaves)

    with jax.default_matmul_precision("highest"):
        evaluated, ((loss, (logits, updates)), gradients) = all_of(
            variables["params"], inputs["images"], inputs["tokens"]
        )
    return {
        "evaluation_logits": evaluated,
        "training_logits": logits,
        "loss": loss,
        "gradients": gradients[0],
        "images_gradient": gradients[1],
        "tokens_gradient": gradients[2],
        "batch_stats": updates["batch_stats"],
    }


def differences(ours: dict, theirs: dict) -> dict[str, float]:
    """Norm of the difference over the norm, the largest of all layers."""

    def of(one, other):
        one, other = (
            np.concatenate([np.ravel(x) for x in jax.tree.leaves(y)]) for y in (one, other)
        )
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))

    def layers(tree, other):
        for name, value in other.items():
            if isinstance(next(iter(value.values())), dict):
                yield from layers(tree[name], value)
            else:
                yield of(tree[name], value)

    return {
        name: max(layers(ours[name], value)) if isinstance(value, dict) else of(ours[name], value)
        for name, value in theirs.items()
    }


def in_float64(drawing):
    module, images, tokens, masks = drawing
    return module.double(), images.double(), [one.double() for one in tokens], masks.double()


def parity() -> None:
    for width, classes, size, grid, batch in ((128, 2, 96, 6, 2), (1024, 1, 224, 16, 1)):
        inputs, theirs = torch_answers(*drawn(width, classes, size, grid, batch, 32))
        ours = flax_answers(inputs, UNETRDecoder(classes))
        with jax.enable_x64(True):
            drawing = in_float64(drawn(width, classes, size, grid, batch, 32))
            inputs, truth = torch_answers(*drawing)
            exact = differences(flax_answers(inputs, UNETRDecoder(classes, dtype=float)), truth)
        near, far = differences(ours, truth), differences(theirs, truth)
        print(f"\n{size} px, tokens of {width}, {classes} classes, {batch} images")
        print(f"  {'':20} float64   float32: here  PyTorch")
        for name, difference in exact.items():
            print(f"  {name:20} {difference:.1e}   {near[name]:13.1e}  {far[name]:.1e}")
            if not difference < TOLERANCE:
                raise SystemExit(f"{name} differs by {difference:.1e}, more than {TOLERANCE}")


def golden() -> None:
    """Answers of PyTorch in float64, rounded to float32; trees as vectors of their sorted leaves."""
    with jax.enable_x64(True):
        inputs, theirs = torch_answers(*in_float64(drawn(6, 2, 32, 3, 2, 2)))
        vectors = {
            name: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])
            if isinstance(value, dict)
            else value
            for name, value in (inputs | theirs).items()
        }
    rounded = {k: v if v.dtype == bool else v.astype(np.float32) for k, v in vectors.items()}
    np.savez_compressed(GOLDEN, **rounded)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parity", action="store_true", help="no speed")
    parser.add_argument("--golden", action="store_true", help="write the golden file")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each program")
    arguments = parser.parse_args()
    if arguments.golden:
        golden()
        return
    parity()


if __name__ == "__main__":
    main()
