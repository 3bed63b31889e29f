"""The samples of tasks beside text classification: made again byte for byte, without near copies across splits."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from samples import DATA, load_script, read_sample, share_near_copies, split_of

NAMES = ("tickets", "questions", "ratings", "claims")
TEXTS = {"tickets": ("message",), "questions": ("question", "other"), "ratings": ("review",), "claims": ("note",)}
ROWS = {"tickets": (1950, 2050), "questions": (2400, 2400), "ratings": (2000, 2000), "claims": (2000, 2000)}


@pytest.fixture(scope="module")
def samples() -> dict[str, list[dict[str, str]]]:
    return {name: read_sample(name) for name in NAMES}


def texts_of(name: str, rows: list[dict[str, str]]) -> list[str]:
    return [" ".join(row[column] for column in TEXTS[name]) for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_writes_its_file_again_byte_for_byte(name, tmp_path):
    out = tmp_path / f"{name}.csv"
    subprocess.run([sys.executable, DATA / f"make_{name}.py", "--out", out], check=True, capture_output=True)
    assert out.read_bytes() == (DATA / "sample" / out.name).read_bytes()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_other_rows(name):
    write = getattr(load_script(f"make_{name}"), f"write_{name}")
    first, second = ({str(row) for row in write(rows=200, seed=seed)} for seed in (8, 9))
    assert len(first & second) < 5


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_as_many_as_they_should_be_and_all_different(name, samples):
    texts = [" ".join(text.casefold().split()) for text in texts_of(name, samples[name])]
    least, most = ROWS[name]
    assert least <= len(texts) <= most
    assert len({*texts}) == len(texts)


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_short_sentences_without_a_slot_left_open(name, samples):
    texts = [row[column] for row in samples[name] for column in TEXTS[name]]
    assert all(2 <= len(text.split()) <= 90 and not re.search(r"[{}]|  |\.\.", text) for text in texts)
    assert sum(len(text.split()) for text in texts) / len(texts) < 35


@pytest.mark.parametrize("name", NAMES)
def test_test_rows_have_hardly_a_near_copy_in_train(name, samples):
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for text in texts_of(name, samples[name]):
        splits[split_of(text)].append(text)
    assert share_near_copies(splits["test"], splits["train"]) < 0.02
    assert all(0.5 * share < len(splits[split]) / len(samples[name]) < 1.3 * share
               for split, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)))  # fmt: skip


def test_tickets_have_any_number_of_labels_some_together_more_often_than_others(samples):
    labels = [row["labels"].split("|") if row["labels"] != "[]" else [] for row in samples["tickets"]]
    assert all(row == sorted({*row}) for row in labels)
    assert {len(row) for row in labels} == {0, 1, 2, 3}
    counts = Counter(label for row in labels for label in row)
    assert len(counts) == 7
    assert min(counts.values()) > 150
    assert max(counts.values()) > 1.5 * min(counts.values())
    pairs = Counter(pair for row in labels for pair in combinations(row, 2))
    assert pairs["damaged", "refund"] > 200 > pairs["billing", "login"] > 20


def test_a_sentence_that_turns_a_label_round_does_not_give_it(samples):
    """Words of a label stand in many messages that do not have it, so that words alone cannot tell."""
    words = load_script("make_tickets").read_words()
    clauses = {
        label: [clause for clause in group["clauses"] if "{" not in clause]
        for label, group in words["labels"].items()
    }
    for label, known in clauses.items():
        rows = [row for row in samples["tickets"] if any(clause in row["message"] for clause in known)]
        without = sum(label not in row["labels"].split("|") for row in rows) / len(rows)
        assert 0.1 < without < 0.5, label


def test_a_question_stands_in_one_pair_and_half_of_the_pairs_are_duplicates(samples):
    rows = samples["questions"]
    questions = [row[column] for row in rows for column in TEXTS["questions"]]
    assert len({*questions}) == len(questions)
    assert Counter(row["duplicate"] for row in rows) == {"duplicate": 1200, "different": 1200}


def test_different_questions_share_as_many_words_as_duplicates(samples):
    def overlap(row: dict[str, str]) -> float:
        first, second = ({*row[column].lower().split()} for column in TEXTS["questions"])
        return len(first & second) / len(first | second)

    shares = {
        kind: np.mean([overlap(row) for row in samples["questions"] if row["duplicate"] == kind])
        for kind in ("duplicate", "different")
    }
    assert shares["duplicate"] == pytest.approx(shares["different"], abs=0.1)


def test_questions_that_differ_mean_something_else():
    script = load_script("make_questions")
    words, rng = script.read_words(), random.Random(0)
    meanings = [script.draw_meaning(words, rng) for _ in range(200)]
    for sort in ("ask", "act", "around", "unrelated"):
        others = [script.change(meaning, sort, words, rng) for meaning in meanings]
        changed = [other for meaning, other in zip(meanings, others, strict=True) if other != meaning]
        assert len(changed) == (200 if sort != "around" else sum(bool(meaning.around) for meaning in meanings))
    wordings = [way for acts in words["acts"].values() for ways in acts.values() for way in ways]
    assert len({*wordings}) == len(wordings)


def test_ratings_use_the_whole_scale_and_have_one_decimal(samples):
    ratings = [row["rating"] for row in samples["ratings"]]
    assert all(re.fullmatch(r"(10|\d)\.\d", rating) for rating in ratings)
    numbers = np.array(ratings, float)
    assert (numbers.min(), numbers.max()) == (0.0, 10.0) or numbers.min() < 1 < 9 < numbers.max()
    assert 4.5 < numbers.mean() < 5.5
    assert 1.5 < numbers.std() < 2.5


def test_claims_are_numbers_and_categories_with_some_missing_beside_a_note(samples):
    rows = samples["claims"]
    missing = {column: sum(not row[column] for row in rows) / len(rows) for column in rows[0]}
    assert {column for column, share in missing.items() if share} == {"age", "amount", "region", "channel"}
    assert all(share < 0.2 for share in missing.values())
    for column in ("age", "amount", "days"):
        assert all(float(row[column]) >= 0 for row in rows if row[column])
    for column in ("region", "channel", "cover"):
        assert 3 <= len({row[column] for row in rows if row[column]}) <= 5
    paid = sum(row["outcome"] == "paid" for row in rows) / len(rows)
    assert {row["outcome"] for row in rows} == {"paid", "declined"}
    assert 0.45 < paid < 0.6


def test_columns_and_note_of_a_claim_both_matter():
    script = load_script("make_claims")
    words, rng = script.read_words(), random.Random(0)
    drawn = [(script.draw_claim(words, rng), script.write_note(words, rng)) for _ in range(2000)]
    scores = np.array([(claim.score(words), said) for claim, (_, said) in drawn])
    paid = scores.sum(axis=1) > 0
    for part in scores.T:
        assert 0.6 < ((part > 0) == paid).mean() < 0.88


def test_words_of_a_note_alone_do_not_say_whether_a_claim_is_paid(samples):
    """The same clause speaks for a claim in one frame and against it in another."""
    words = load_script("make_claims").read_words()
    for side, outcome in (("for", "paid"), ("against", "declined")):
        rows = [
            row for row in samples["claims"] if any(clause in row["note"] for clause in words["clauses"][side])
        ]
        assert 0.4 < sum(row["outcome"] == outcome for row in rows) / len(rows) < 0.7
