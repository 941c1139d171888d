"""Which example images a report shows."""

from fetalclip_jax.data import records
from fetalclip_jax.reports import gallery
from fetalclip_jax.reports.run import load_run


def rows(*labels_and_predictions):
    return [
        {"example_id": f"e{k}", "label": label, "prediction": prediction}
        for k, (label, prediction) in enumerate(labels_and_predictions)
    ]


def test_classes_take_turns():
    many = rows(*[("brain", "brain")] * 8, ("femur", "femur"), ("heart", "heart"))
    assert [r["label"] for r in gallery.choose(many, 5, correct=True)] == [
        "brain",
        "femur",
        "heart",
        "brain",
        "brain",
    ]


def test_right_and_wrong_are_kept_apart():
    mixed = rows(("brain", "femur"), ("brain", "brain"), ("femur", "brain"))
    wrong = gallery.choose(mixed, 6, correct=False)
    assert {r["example_id"] for r in wrong} == {"e0", "e2"}


def test_the_choice_does_not_depend_on_the_order_of_the_file():
    many = rows(*[("brain", "brain")] * 20)
    assert gallery.choose(many, 4, True) == gallery.choose(many[::-1], 4, True)


def test_the_choice_is_not_the_head_of_the_file():
    many = rows(*[("brain", "brain")] * 20)
    assert gallery.choose(many, 4, True) != many[:4]


def test_cards_carry_the_image_of_their_own_id(workdir, image_source):
    records.prepare(image_source, workdir / "records" / "test", image_size=48, progress=False)
    cards = gallery.cards(load_run(workdir).predictions["planes"], workdir)
    by_id = {image_source[i].example_id: image_source[i].image for i in range(len(image_source))}
    assert len(cards) > gallery.COLUMNS
    for card in cards:
        assert (card.image == by_id[card.example_id]).all()
        assert card.candidates[0][0] == card.prediction
        assert [s for _, s in card.candidates] == sorted((s for _, s in card.candidates))[::-1]
