"""A text is found however it is spelled, and where it is cut; what only begins like it stays."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dlpipe.forgetting.asked import AskedRow
from dlpipe.forgetting.choosing import RowChooser
from dlpipe.forgetting.contents import blank_content
from dlpipe.forgetting.own_words import find_own_words
from dlpipe.forgetting.splitting import list_words, split_words
from dlpipe.forgetting.words import Needles
from dlpipe.lineage import Records

LETTER = (
    "Dear Sir or Madam, I am writing to you about the order that I placed in your shop last month, and that has "
    "not arrived until today, "
)


PIECES = (
    *("a", "E", "Good", "n", "_", "é", "e\u0301", "\u0301", "ß", "ſ", "ﬁ", "İ", "½", "Ⅷ", "ー", "क", "्", "\udc80"),
    *("\\u00e4", "\\u0301", "\\u0130", "\\ud835\\udc00", "\\ud835", "\\\\u00e4", "\\n", "\\"),
    *(
        "&amp;",
        "&#776;",
        "&#x61;",
        "&fjlig;",
        "&frac12;",
        "<b>",
        "<i class='x'>",
        "<",
        "> ",
        " ",
        "\n",
        '"',
        "\x00",
    ),
)


def blank(content: str, *texts: str) -> str:
    return blank_content(content.encode(), Needles.from_texts(texts)).decode()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Die Lindenstraße ist laut", "Die Lindenstraße ist laut"),
        ("Die Lindenstraße ist laut", "DIE LINDENSTRASSE IST LAUT"),
        ("Die Lindenstrasse ist laut", "die lindenstraße ist laut"),
        ("Die Lindenstrasse ist laut", '["Die Lindenstra\\u00dfe ist laut"]'),
        ("A superﬁcial and dull ﬂop", "a superficial and dull flop"),
        ("A superficial and dull flop", "a superﬁcial and dull ﬂop"),
        ("Das Café war überfüllt", unicodedata.normalize("NFD", "das Café war überfüllt")),
        ("Das Café war überfüllt", json.dumps(unicodedata.normalize("NFD", "das Café war überfüllt"))),
        (unicodedata.normalize("NFD", "Das Café war überfüllt"), "das caf&eacute; war überfüllt"),
        ("Der İstanbul Kebap war kalt", "der İstanbul Kebap war kalt"),
        ("Ｇreat soup, 𝓗𝓮𝓵𝓵𝓸 my friend", "great soup, hello my friend"),
        ("𝓗𝓮𝓵𝓵𝓸 my good old friend", json.dumps("𝓗𝓮𝓵𝓵𝓸 my good old friend")),
        ("नमस्ते पुराने प्यारे दोस्त", json.dumps("नमस्ते पुराने प्यारे दोस्त")),
        ("Straße", "<b>Strasse</b>"),
        ("A fine film and that was the Throckmortonian zither", "a fine film and that was…"),
        ("A fine film and that was the Throckmortonian zither", '"a fine film and <i>that</i> was the Thro..."'),
        (LETTER + "Wilhelmina", LETTER[:-2] + '", "soup"'),
    ],
)
def test_a_text_is_found_in_another_spelling(text, written):
    made = blank(written, text)
    assert made != written
    assert not any(letter.isalpha() and letter not in "bisoup" for letter in made)


@pytest.mark.parametrize("apostrophe", ["'", "\\'", "’", "\\u2019", "\\\\u2019"])
def test_a_letter_with_the_same_long_beginning_stays(apostrophe):
    other = f'{{"text": "{LETTER}it{apostrophe}d be kind to answer me, Bartholomew"}}'
    assert blank(other, f"{LETTER}it's late") == other


def test_what_only_has_the_same_words_between_tags_is_no_beginning():
    other = '<span class="a">I</span><span class="b">think</span>... that it is fine'
    assert blank(other, "I think that Wilhelmina wept at the zither") == other


def test_a_text_is_found_in_a_table_in_other_letters(tmp_path):
    text = "Die Lindenstrasse ist laut"
    chooser = RowChooser([AskedRow("1", "a", inputs={"text": text}, text_columns=("text",))])
    values = ["die Lindenstraße ist laut", f"Ｄ{text[1:]}", text.upper(), "soup", None]
    found = chooser.choose(pa.record_batch({"note": values}), "theirs")
    assert found.to_pylist() == [True, True, True, False, False]


def test_a_word_that_another_row_spells_otherwise_is_not_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    rows = {"row_id": ["1", "2"], "split": ["train"] * 2, "label": ["a"] * 2}
    texts = ["Lindenstrasse und Kirchgasse", "Die Lindenstraße im Regen"]
    write_deltalake(str(tmp_path / "tables" / "letters"), pa.table({**rows, "text": texts}))
    chooser = RowChooser([AskedRow("1", "a", own_id="1", inputs={"text": texts[0]})])
    assert find_own_words(Records(), chooser) == {"kirchgasse"}
    assert Path("tables/letters").is_dir()


@pytest.mark.parametrize("markup", [False, True])
def test_the_quick_look_sees_the_words_that_are_compared(markup):
    draw = random.Random(1)
    for _ in range(20_000):
        content = "".join(draw.choices(PIECES, k=draw.randint(1, 9)))
        assert list_words(content, markup=markup) == [word.text for word in split_words(content, markup=markup)]


@pytest.mark.parametrize(
    "content", ["{}", "soup\n{}\nbar", "soup\r\n {}, \r\nbar", "<li>\n  {}\n</li>", '["a", "{}"]']
)
def test_a_word_of_a_list_is_found_however_the_list_is_written(content):
    needles = Needles.from_texts([], alone=["zither"])
    assert needles.blank(content.format("Zither")) == content.format("_")


@pytest.mark.parametrize("content", ["a zither", "zither bar", "soup\n a zither\n", "zithers", "soup,zither,bar"])
def test_a_word_within_other_text_is_no_value(content):
    assert Needles.from_texts([], alone=["zither"]).blank(content) == content
