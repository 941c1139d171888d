"""Names that other people's code leans on, as attributes of the package alone."""

import subprocess
import sys


def test_public_names_are_attributes_and_import_nothing_heavy():
    code = (
        "import sys, fetalclip_jax\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert len(fetalclip_jax.evaluation.metrics.f1_per_class([0, 1], [0, 1], 2)) == 2\n"
        "fetalclip_jax.evaluation.metrics.bootstrap_interval\n"
        "fetalclip_jax.evaluation.age.days_from_similarity\n"
        "fetalclip_jax.evaluation.age.valid_prediction_rate\n"
        "fetalclip_jax.losses.softmax_contrastive\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
