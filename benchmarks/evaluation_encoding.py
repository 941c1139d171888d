"""Does `fetalclip evaluate` see what open_clip sees, and as fast as its model can?

    pip install -e '.[parity]'
    python benchmarks/evaluation_encoding.py --images FOLDER [--model ViT-B-16] [--count 64]

A model with random weights goes to open_clip and, through a `.pt` file, to this package. Every
image of a folder is encoded twice: by open_clip, padded to a black square with Pillow and given to
its own transform, and by the path `evaluate` takes. Features are compared by the largest difference
over the largest value, predictions by the nearest of nine prompts. Then the encoding's rate is held
against a loop of the model alone on pixels in memory.
"""

import argparse
import os
import pathlib
import tempfile
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np
import open_clip
import PIL.Image
import reference  # beside this file
import torch

import fetalclip_jax
from fetalclip_jax.captions.prompts import load_prompts
from fetalclip_jax.datasets import registry
from fetalclip_jax.evaluation import features


def padded(path: pathlib.Path) -> PIL.Image.Image:
    """The image centred on a black square, as the reference transform wants it."""
    image = PIL.Image.open(path).convert("RGB")
    side = max(image.size)
    square = PIL.Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--model", default="ViT-B-16", help="FetalCLIP or one of open_clip's")
    parser.add_argument("--count", type=int, default=64, help="images compared (default: 64)")
    parser.add_argument("--batch", type=int, default=8, help="images per call (default: 8)")
    arguments = parser.parse_args()

    fields = reference.fields(arguments.model)
    theirs = reference.model(fields)
    source = registry.open_source("image_text", arguments.images, "all")
    source = _First(source, arguments.count)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.pt"
        torch.save(theirs.state_dict(), path)
        ours = fetalclip_jax.load(path, fields)
        # Compiled before anything is timed.
        features.encode(ours, _First(source, 1), batch_size=arguments.batch, progress=False)
        start = time.perf_counter()
        store = features.encode(ours, source, batch_size=arguments.batch, progress=False)
        rate = len(store) / (time.perf_counter() - start)

    size = fields["vision_cfg"]["image_size"]
    transform = open_clip.transform.image_transform(size, is_train=False)
    root = pathlib.Path(arguments.images)
    pixels = torch.stack([transform(padded(root / i)) for i in store.columns["example_id"]])
    with torch.inference_mode():
        expected = torch.cat([theirs.encode_image(part) for part in pixels.split(arguments.batch)])
        prompts = [texts[0] for texts in load_prompts("planes").values()]
        length = fields["text_cfg"]["context_length"]
        text = theirs.encode_text(
            open_clip.get_tokenizer("ViT-B-32", context_length=length)(prompts)
        )
    expected, text = expected.numpy(), text.numpy()
    found = store.image_features
    error = np.abs(found - expected).max() / np.abs(expected).max()
    ours_text = ours.encode_text(ours.tokenize(prompts))
    same = (_nearest(found, ours_text) == _nearest(expected, text)).mean()

    batch = np.zeros((arguments.batch, size, size, 3), np.uint8)
    ours.encode_pixels(batch)
    start, calls = time.perf_counter(), -(-len(store) // arguments.batch)
    for _ in range(calls):
        ours.encode_pixels(batch)
    alone = calls * arguments.batch / (time.perf_counter() - start)
    print(
        f"{arguments.model}, {len(store)} images: features off by {error:.1e}, "
        f"{same:.1%} of the predictions the same; {rate:.2f} images/s through evaluate, "
        f"{alone:.2f} by the model alone ({rate / alone:.1%})"
    )


class _First:
    """The first images of a source."""

    def __init__(self, source, count: int):
        self._source, self._count = source, min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        return self._source[index]


def _nearest(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    return (images @ texts.T).argmax(1)


if __name__ == "__main__":
    main()
