"""The sample that ships: made again byte for byte, hard for a bag of words, and no near copies across splits."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter

import pytest
from samples import DATA, SPLITS, load_script, read_sample, share_near_copies, split_of

SAMPLE = DATA / "sample" / "reviews.csv"


@pytest.fixture(scope="module")
def script():
    return load_script("make_reviews")


@pytest.fixture(scope="module")
def reviews(script):
    return script.write_reviews()


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str]]:
    return [(row["review"], row["sentiment"]) for row in read_sample("reviews")]


@pytest.fixture(scope="module")
def splits(rows):
    return {name: [row for row in rows if split_of(row[0]) == name] for name in SPLITS}


def test_script_writes_the_committed_file_again_byte_for_byte(tmp_path):
    out = tmp_path / "reviews.csv"
    subprocess.run([sys.executable, DATA / "make_reviews.py", "--out", out], check=True, capture_output=True)
    assert out.read_bytes() == SAMPLE.read_bytes()
    assert list(tmp_path.iterdir()) == [out]


def test_another_seed_gives_other_reviews(script, reviews):
    others = {review.text for review in script.write_reviews(rows=200, seed=3)}
    assert len(others & {review.text for review in reviews}) < 5


def test_sample_has_about_3000_unique_rows_and_balanced_labels(rows):
    assert 2900 <= len(rows) <= 3100
    assert len({" ".join(text.casefold().split()) for text, _ in rows}) == len(rows)
    labels = Counter(label for _, label in rows)
    assert set(labels) == {"positive", "negative"}
    assert 0.49 <= labels["positive"] / len(rows) <= 0.51


def test_reviews_are_short_english_sentences_without_a_slot_left_open(rows):
    assert all(3 <= len(text.split()) <= 45 and not re.search(r"[{}!]{2}|[{}]|  ", text) for text, _ in rows)
    assert sum(len(text.split()) for text, _ in rows) / len(rows) < 18


def test_every_domain_and_frame_holds_both_labels_in_equal_parts(script, reviews):
    words = script.read_words()
    for kind in ("domain", "frame"):
        cells = Counter((getattr(review, kind), review.sentiment) for review in reviews)
        names = words[kind + "s"]
        assert {name for name, _ in cells} == set(names)
        assert all(cells[name, "positive"] >= 80 for name in names)
        assert all(0.8 < cells[name, "positive"] / cells[name, "negative"] < 1.25 for name in names)


def test_some_reviews_carry_typing_errors_and_some_no_capitals(rows):
    bare = sum(text == text.lower() for text, _ in rows) / len(rows)
    assert 0.03 < bare < 0.10
    known = Counter(word for text, _ in rows for word in re.findall(r"[a-z]{5,}", text.lower()))
    odd = sum(any(known[word] == 1 for word in re.findall(r"[a-z]{5,}", text.lower())) for text, _ in rows)
    assert 0.05 < odd / len(rows) < 0.25


def test_slips_never_touch_a_word_that_turns_the_sentence():
    writing = load_script("writing")
    rng, turning = random.Random(0), writing.TURNING
    assert all(writing.slip(turning, rng) == turning for _ in range(200))


def test_test_rows_have_hardly_a_near_copy_in_train(splits):
    test, train = ([text for text, _ in splits[name]] for name in ("test", "train"))
    assert share_near_copies(test, train) < 0.01


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_bag_of_words_baseline_stays_under_090(splits, strength):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    baseline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=strength, max_iter=1000)
    )
    baseline.fit(*zip(*splits["train"], strict=True))
    accuracy = baseline.score(*zip(*splits["test"], strict=True))
    # The lower bound: a sample that a bag of words cannot learn at all would have no sense in it.
    assert 0.65 < accuracy < 0.88
