"""Is the segmentation decoder the same function as in PyTorch, and how fast is a step of it?

    pip install -e '.[parity]'
    python benchmarks/unetr.py                  # parity, then the speed of both sizes
    python benchmarks/unetr.py --parity         # parity alone
    python benchmarks/unetr.py --speed          # speed alone
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
alternate, so that whatever else the machine does falls on both. PyTorch runs as one writes it
(NCHW), and with all its arrays channels last.
"""

import argparse
import functools
import os
import pathlib
import time

# float32 on an accelerator is not float32 by default.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from unetr_reference import TorchDecoder, copied, torch_dice_loss  # beside this file

from fetalclip_jax.evaluation.heads import unetr_step
from fetalclip_jax.losses.dice import dice_loss
from fetalclip_jax.models.unetr import UNETRDecoder, initial_variables

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "models" / "unetr_golden.npz"
TOLERANCE = 1e-5
BATCH = 8


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
    """Answers of PyTorch in float64, as float32; trees as vectors of their sorted leaves."""
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


class Case:
    """Two programs for a step of the same size; every call makes one."""

    def __init__(self, width, size, grid, channels_last):
        torch.manual_seed(0)
        self._module = TorchDecoder(width, 1)
        self._inputs = [torch.randn(BATCH, 3, size, size)]
        self._inputs += [torch.randn(BATCH, width, grid, grid) for _ in range(4)]
        self._masks = (torch.rand(BATCH, 1, size, size) > 0.6).float()
        if channels_last:
            layout = {"memory_format": torch.channels_last}
            self._module = self._module.to(**layout)
            self._inputs = [one.to(**layout) for one in self._inputs]
        # As published: of all parameters, by PyTorch's defaults.
        self._optimiser = torch.optim.AdamW(self._module.parameters(), 3e-4, weight_decay=0.01)
        decoder = UNETRDecoder(1)
        initial = initial_variables(decoder, size, (grid, grid, width), seed=0)
        self._state = unetr_step.initial_state([initial])
        rng = np.random.default_rng(0)
        self._batch = {
            "pixels": jnp.asarray(rng.integers(0, 256, (1, BATCH, size, size), np.uint8)),
            "tokens": jnp.asarray(rng.normal(size=(1, BATCH, 4, grid, grid, width)), jnp.float16),
            "masks": jnp.asarray(rng.random((1, BATCH, size, size, 1)) > 0.6),
        }
        self._step = functools.partial(unetr_step.train_step, decoder=decoder)

    def here(self):
        one = np.ones(1, np.float32)
        self._state, loss = self._step(self._state, self._batch, 3e-4 * one, one > 0, 0.01)
        loss.block_until_ready()

    def pytorch(self):
        self._optimiser.zero_grad()
        images, *tokens = self._inputs
        torch_dice_loss(self._module(images, tokens), self._masks).backward()
        self._optimiser.step()


def speed(steps: int) -> None:
    print(f"\none step of {BATCH} images, {os.cpu_count()} cores; medians of {steps}")
    for width, size, grid in ((128, 96, 6), (1024, 224, 16)):
        for channels_last in (False, True):
            case = Case(width, size, grid, channels_last)
            spent = {"here": [], "pytorch": []}
            for _ in range(steps + 1):  # the first compiles
                for name, times in spent.items():
                    start = time.perf_counter(), time.process_time()
                    getattr(case, name)()
                    times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
            here, pytorch = (np.median(times[1:], axis=0) for times in spent.values())
            layout = "channels last" if channels_last else "NCHW"
            print(f"  {size} px, tokens of {width}; PyTorch {layout}")
            for name, (wall, processor) in (("here", here), ("PyTorch", pytorch)):
                rate = BATCH / wall
                print(
                    f"    {name:8} {wall:6.2f} s, {processor:6.2f} s of processors, "
                    f"{rate:.2f} pairs/s"
                )
            wall, processor = pytorch / here
            print(
                f"    PyTorch takes {wall:.2f} x the time, {processor:.2f} x the processor time",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parity", action="store_true", help="no speed")
    parser.add_argument("--speed", action="store_true", help="no parity")
    parser.add_argument("--golden", action="store_true", help="write the golden file")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each program")
    arguments = parser.parse_args()
    if arguments.golden:
        golden()
        return
    if not arguments.speed:
        parity()
    if not arguments.parity:
        speed(arguments.steps)


if __name__ == "__main__":
    main()
