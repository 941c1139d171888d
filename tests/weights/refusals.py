"""How a test asks why a weight file is refused."""

import numpy as np
import pytest

from fetalclip_jax.weights import torch_zip
from tests.weights.torch_files import save

# The bytes of the one storage, "0", of most test files.
ONES = {"0": np.ones(24, np.float32).tobytes()}


def refusal(path) -> str:
    """The message with which the reader refuses a file; it names the file."""
    with pytest.raises(ValueError, match=path.name) as caught:
        torch_zip.open_tensors(path)
    return str(caught.value)


def pickle_refusal(tmp_path, content) -> str:
    """The same of a file whose pickle describes `content`, beside the one storage `ONES`."""
    return refusal(save(tmp_path / "attack.pt", content, ONES))
