"""The segmentation decoder as one would write it in PyTorch, for `unetr.py`."""

import itertools

import jax.numpy as jnp
import torch
from torch import nn
from torch.nn import functional


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
