"""Makes `clip_bpe.npz`, the compact tables of CLIP's tokenizer, from the published vocabulary.

    python -m fetalclip_jax.tokenizers.make_clip_bpe_table bpe_simple_vocab_16e6.txt.gz

The input (1.3 MB, MIT licence, https://github.com/openai/CLIP, folder `clip`; also inside the
open_clip wheel) lists merges as pairs of strings; the output holds them as pairs of token ids:

  merges: uint16 [48894, 2]; merge i makes token 512 + i.
  letters, numbers: uint32 [n, 2]; first and last code point of every run of Unicode categories L
    and N. Python's own tables change with its version, these stay.

The `regex` package, which open_clip splits words with, supplies the categories (it is needed here
only). The same input and `regex` version give the same tables; their checksum is in `clip_bpe.py`.
"""

import argparse
import gzip
import hashlib
import pathlib
import sys

import numpy as np

from fetalclip_jax.tokenizers import clip_bpe

SOURCE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
_SUFFIX = "</w>"


def merge_ids(vocabulary_gz: bytes) -> np.ndarray:
    """Merges as token ids, uint16 [48894, 2], from the bytes of the published file.

    Raises:
      ValueError: another file (by SHA-256).
    """
    digest = hashlib.sha256(vocabulary_gz).hexdigest()
    if digest != SOURCE_SHA256:
        raise ValueError(
            f"the vocabulary file has SHA-256 {digest}, the published one {SOURCE_SHA256}; "
            "download bpe_simple_vocab_16e6.txt.gz again"
        )
    # The first line is a version; lines past the vocabulary's size were never used.
    lines = gzip.decompress(vocabulary_gz).decode("utf-8").split("\n")
    pairs = [line.split() for line in lines[1 : 1 + clip_bpe.NUM_MERGES]]
    symbols = [_published_symbol(byte) for byte in clip_bpe.BYTE_ORDER]
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    ids |= {symbol + _SUFFIX: len(symbols) + i for i, symbol in enumerate(symbols)}
    for first, second in pairs:
        ids[first + second] = len(ids)
    return np.array([[ids[first], ids[second]] for first, second in pairs], np.uint16)


def category_runs(category: str) -> np.ndarray:
    """First and last code point of each run of a Unicode category ("L", "N"), uint32 [n, 2]."""
    import regex

    text = "".join(map(chr, range(sys.maxunicode + 1)))
    spans = [match.span() for match in regex.finditer(rf"\p{{{category}}}+", text)]
    return np.array([(start, stop - 1) for start, stop in spans], np.uint32)


def _published_symbol(byte: int) -> str:
    """The published file writes the bytes that are not visible Latin-1 as U+0100, U+0101, ..."""
    if byte in clip_bpe.VISIBLE_BYTES:
        return chr(byte)
    return chr(256 + clip_bpe.HIDDEN_BYTES.index(byte))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vocabulary", type=pathlib.Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(__file__).with_name(clip_bpe.TABLE_NAME),
        help="file to write (default: beside this script)",
    )
    arguments = parser.parse_args()
    tables = {
        "merges": merge_ids(arguments.vocabulary.read_bytes()),
        "letters": category_runs("L"),
        "numbers": category_runs("N"),
    }
    np.savez_compressed(arguments.output, **tables)
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")
    print(f"SHA-256 of the tables: {clip_bpe.tables_sha256(tables)}")


if __name__ == "__main__":
    main()
