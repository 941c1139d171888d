"""What is judged: images, or clips of several; and counts of them in words."""

from fetalclip_jax.evaluation.result import Result


def judged_unit(result: Result) -> str:
    """What one row of the predictions is, in the plural: "images" or "clips"."""
    return str(result.details.get("unit", "images"))


def counted(count: int, unit: str) -> str:
    """ "1 image", "1,200 clips"."""
    return f"{count:,} {unit.removesuffix('s') if count == 1 else unit}"
