"""The items of CLAIM 2024 that a program can know, filled in from results and runs.

Checklist for Artificial Intelligence in Medical Imaging (CLAIM), 2024 update: Tejani et al.,
Radiology: Artificial Intelligence 2024, 6(4):e240300. Its 44 items by number, in our own words. An
item is answered from what was recorded or not at all: the others are for the authors to say.
"""

import dataclasses
from collections.abc import Callable, Iterable

from fetalclip_jax.reports import claim_data, claim_methods, page
from fetalclip_jax.reports.frame import Report

SOURCE = "Tejani et al., Radiology: Artificial Intelligence 2024, 6(4):e240300"


@dataclasses.dataclass(frozen=True)
class Item:
    """One item of the checklist.

    Attributes:
      number: in CLAIM 2024.
      asks: what has to be reported.
      answer: sentences about it, from what a report holds; None if no program can know.
      beyond: what remains for the authors to say where there are such sentences.
    """

    number: int
    asks: str
    answer: Callable[[Report], Iterable[str]] | None = None
    beyond: str = ""


ITEMS = (
    Item(1, "a title that names the kind of artificial intelligence"),
    Item(2, "a structured abstract"),
    Item(3, "clinical background, intended use and role"),
    Item(4, "aims and hypotheses"),
    Item(5, "prospective or retrospective data"),
    Item(6, "what kind of study it is: making, trying or comparing a model"),
    Item(7, "where the data come from", claim_data.sources),
    Item(
        8,
        "which images were eligible",
        claim_data.eligibility,
        "how the makers of the data chose patients and images",
    ),
    Item(9, "preprocessing", claim_data.preprocessing),
    Item(10, "parts of images or examinations that were selected, and by whom"),
    Item(11, "de-identification"),
    Item(12, "missing data", claim_data.missing),
    Item(13, "acquisition", claim_data.acquisition, "probes and settings"),
    Item(
        14,
        "reference standard",
        claim_data.reference,
        "how the data's labels and measurements were obtained",
    ),
    Item(15, "why this reference standard"),
    Item(16, "who annotated, and with what training"),
    Item(17, "how the test images were annotated, with which tools"),
    Item(18, "agreement between and within annotators"),
    Item(19, "how images were assigned to partitions", claim_data.partitions),
    Item(20, "the level at which partitions are disjoint", claim_data.level),
    Item(21, "sample size", claim_data.sample_size, "whether and how a size was calculated before"),
    Item(22, "the model in detail", claim_methods.architecture),
    Item(23, "software with its versions", claim_methods.software),
    Item(24, "initial parameters", claim_methods.initialisation),
    Item(25, "training: settings, seed, hardware", claim_methods.training),
    Item(26, "how the final model was selected", claim_methods.selection),
    Item(27, "ensembles", claim_methods.ensembles),
    Item(28, "metrics of performance", claim_methods.metrics),
    Item(29, "uncertainty and tests of significance", claim_methods.uncertainty),
    Item(30, "robustness and subgroups", claim_methods.robustness),
    Item(31, "methods that explain single predictions"),
    Item(32, "testing on internal data", claim_data.internal),
    Item(33, "testing on external data", claim_data.external),
    Item(34, "registration, of a clinical trial"),
    Item(35, "images and patients included and left out", claim_data.included),
    Item(
        36,
        "characteristics of the cases in each partition",
        claim_data.characteristics,
        "demographic and clinical characteristics",
    ),
    Item(37, "performance, by partition", claim_methods.performance),
    Item(38, "precision of the estimates", claim_methods.precision),
    Item(39, "analysis of failures", claim_methods.failures, "what the failures have in common"),
    Item(40, "limitations"),
    Item(41, "implications for practice"),
    Item(42, "where the whole protocol is", claim_methods.protocol),
    Item(
        43,
        "availability of software, model and data",
        claim_methods.availability,
        "where weights and data can be had, and on what terms",
    ),
    Item(44, "funding and its role"),
)


def section(report: Report) -> str:
    """What is known of each item, and what is not, as HTML; "" without any result.

    The sections it refers to must have been added before.
    """
    if not report.contents.evaluated:
        return ""
    rows, open_items = [], []
    for item in ITEMS:
        lines = list(dict.fromkeys(item.answer(report))) if item.answer else []
        if lines:
            known = "".join(f"<li>{page.text(line)}</li>" for line in lines)
            title = page.text(f"{item.number}. {item.asks[:1].upper()}{item.asks[1:]}")
            rows.append(f'<th scope="row">{title}</th><td><ul>{known}</ul></td>')
        if not lines or item.beyond:
            open_items.append(f"{item.number}. {item.beyond if lines else item.asks}")
    intro = (
        f"Items of CLAIM 2024 ({SOURCE}) that results and runs answer, by number and in our own "
        "words. It is not a filled checklist: it gives authors what was recorded, and names what "
        "only they can say."
    )
    remaining = "".join(f"<li>{page.text(words)}</li>" for words in open_items)
    return (
        page.paragraph(intro)
        + page.table(("Item", "What was recorded"), rows, "claim stacked")
        + "<h3>For the authors to say</h3>"
        + f'<ul class="columns">{remaining}</ul>'
    )
