"""Shipped prompts, prompt files of users, age prompts."""

import json
import re

import pytest

from fetalclip_jax.captions.prompts import ga_prompts, load_prompts, load_templates
from fetalclip_jax.captions.synthesis import caption_corpus
from fetalclip_jax.labels import BRAIN_PLANES, PLANES
from fetalclip_jax.tokenizers.sentencepiece import SentencePieceTokenizer


@pytest.fixture(scope="module")
def corpus():
    return list(caption_corpus(8000, 0))


def words(text):
    return re.findall(r"[a-z]+", text.lower())


@pytest.mark.parametrize(("name", "classes"), [("planes", PLANES), ("brain", BRAIN_PLANES)])
def test_shipped_prompts_have_the_official_classes_in_order(name, classes):
    prompts = load_prompts(name)
    assert tuple(prompts) == classes
    texts = [text for texts in prompts.values() for text in texts]
    assert len(set(texts)) == 5 * len(classes)
    assert not any(re.search(r"\d", text) for text in texts)  # neither age nor spacing


@pytest.mark.parametrize("name", ["planes", "brain"])
def test_shipped_prompts_use_words_of_the_captions_but_are_no_captions(name, corpus):
    known = set(words(" ".join(corpus)))
    seen = {text.rstrip(".").lower() for text in corpus}
    for texts in load_prompts(name).values():
        for text in texts:
            assert set(words(text)) <= known, text
            assert text.rstrip(".").lower() not in seen


def test_brain_prompts_name_the_brain():
    for texts in [*load_prompts("brain").values(), load_prompts("planes")["brain"]]:
        assert all(re.search("brain|head", text) for text in texts)


@pytest.mark.parametrize(
    ("file", "classes"),
    [("five_planes_prompts.json", PLANES), ("brain_subplanes_prompts.json", BRAIN_PLANES)],
)
def test_official_files_are_accepted_and_share_no_sentence(file, classes, shared_reference):
    official = load_prompts(shared_reference / file)
    assert tuple(official) == classes
    assert official == json.loads((shared_reference / file).read_text())
    ours = {t for name in ("planes", "brain") for ts in load_prompts(name).values() for t in ts}
    assert not ours & {text for texts in official.values() for text in texts}


def test_a_path_may_be_text_and_may_carry_a_byte_order_mark(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"b": ["x é"], "a": ["y"]}', encoding="utf-8-sig")
    assert load_prompts(str(path)) == {"b": ["x é"], "a": ["y"]}
    assert list(load_prompts(path)) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"not valid JSON .*expected \{\"class name\""),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON|nested too deeply"),
        ('["a prompt"]', r"found a list \(\[\"a prompt\"\]\), expected"),
        ("null", r"found null"),
        ("3", r"found a number \(3\)"),
        ("{}", "no classes"),
        ('{"heart": "a heart"}', r"class 'heart' holds text \(\"a heart\"\), expected a list"),
        ('{"heart": {"a": ["b"]}}', "class 'heart' holds an object"),
        ('{"heart": []}', "class 'heart' has no prompts"),
        ('{"heart": ["a", 3]}', "prompt 1 of class 'heart' is a number"),
        ('{"heart": ["a", null]}', "prompt 1 of class 'heart' is null"),
        ('{"heart": [["a"]]}', "prompt 0 of class 'heart' is a list"),
        ('{"heart": ["  "]}', "prompt 0 of class 'heart' is blank"),
        ('{"": ["a"]}', "a class name is empty"),
        ('{"heart": ["a"], "heart": ["b"]}', "class 'heart' is given twice"),
    ],
)
def test_a_file_of_another_form_is_a_clear_error(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        load_prompts(path)
    assert str(path) in str(error.value)


def test_bytes_that_are_no_text_are_a_clear_error(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(b'{"heart": ["\xff\xfe"]}')
    with pytest.raises(ValueError, match=r"mine\.json: not UTF-8"):
        load_prompts(path)


def test_a_missing_file_names_the_shipped_sets(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json: No such file.*planes, brain"):
        load_prompts(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="cannot read prompts file plane:"):
        load_prompts("plane")
    with pytest.raises(ValueError, match="cannot read prompts file"):
        load_prompts(tmp_path)  # a folder


def test_age_prompts_by_template_and_day():
    days = [98, 143, 272]
    prompts = ga_prompts(days, 0.5333)
    assert len({tuple(row) for row in prompts}) == 5
    for row in prompts:
        assert len(row) == 3
        for text, age in zip(
            row, ["14 weeks and 0 days", "20 weeks and 3 days", "38 weeks and 6 days"], strict=True
        ):
            assert age in text
            assert "0.53 mm/pixel" in text
            assert re.search("fetal (brain|head)", text)
    assert ga_prompts([143], 0.5)[0][0] == (
        "Ultrasound image of the fetal head at 20 weeks and 3 days, pixel spacing of 0.50 mm/pixel."
    )


def test_placeholders_of_templates():
    templates = ["{weeks} weeks and {days} days, {pixel_spacing} mm/pixel", "{age}; {spacing}"]
    plain, ours = ga_prompts([141, 98], 0.5333, templates)
    assert plain == [
        "20 weeks and 1 days, 0.53 mm/pixel",
        "14 weeks and 0 days, 0.53 mm/pixel",
    ]
    assert ours[0] == "20 weeks and 1 day; 0.53 mm/pixel"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("t.json", '["A head at {age}.", " {weeks} w {days} d "]'),
        ("t.json", '{"templates": ["A head at {age}.", "{weeks} w {days} d"]}'),
        ("t.txt", "A head at {age}.\n\n{weeks} w {days} d\n"),
    ],
)
def test_template_files(tmp_path, file, content):
    (tmp_path / file).write_text(content, encoding="utf-8-sig")
    found = load_templates(tmp_path / file)
    assert found == ("A head at {age}.", "{weeks} w {days} d")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid"),
        ("3", "found a number"),
        ('{"a": ["{age}"], "b": []}', "found an object"),
        ("[1]", "found a list"),
        ('["  "]', "no template"),
        ('["{gestation}"]', r"unknown placeholder \{gestation\}; there are \{age\}, \{weeks\}"),
        ('["{age} {}"]', r"unknown placeholder \{\}"),
        ('["{age} {"]', "write a brace that is meant as text twice"),
        ('["a head"]', r"does not state the age; write \{age\}"),
        ('["{weeks} weeks, {spacing}"]', "does not state the age"),
        ('["{age} {pixel_spacing:.2f}"]', "use the placeholders bare"),
    ],
)
def test_template_errors_name_the_file(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.json: .*{message}") as error:
        load_templates(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"cannot read templates file .*gone\.json"):
        load_templates(tmp_path / "gone.json")


def test_age_prompts_refuse_a_spacing_that_is_none():
    with pytest.raises(ValueError, match="pixel spacing is -1"):
        ga_prompts([143], -1.0)


def test_every_prompt_is_whole_in_a_vocabulary_of_captions(corpus):
    tokenizer = SentencePieceTokenizer.train(corpus[:3000], vocab_size=1000, context_length=48)
    texts = [t for name in ("planes", "brain") for ts in load_prompts(name).values() for t in ts]
    texts += [text for row in ga_prompts(range(98, 273), 0.53) for text in row]
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert len(ids) <= 46
        # Nearly a token per word, mark and digit: no word falls apart into letters.
        parts = len(re.findall(r"[A-Za-z]+|\d|[^\sA-Za-z\d]", text)) + len(re.findall(r" \d", text))
        assert len(ids) <= parts + 1, text
