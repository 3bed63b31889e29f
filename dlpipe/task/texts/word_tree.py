"""The tree of neighbouring words over which they share credit: that of ``shap.maskers.Text``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dlpipe.task.row_parts import PartTree, Span

ENDS_IN_MARK = re.compile(r"^.*\W$")
STARTS_IN_LETTER = re.compile(r"^[A-Za-z]")
CONNECTORS = ("but", "and", "or")
SENTENCE_ENDS = (".", "?", "!")


def build_word_tree(words: Sequence[str]) -> PartTree:
    """Return the tree that merges the two most closely bound neighbours until one group is left.

    Examples
    --------
    >>> words = ["not ", "good ", "but ", "short"]
    >>> [words[start:stop] for start, stop in build_word_tree(words).spans[4:]]
    [['not ', 'good '], ['but ', 'short'], ['not ', 'good ', 'but ', 'short']]
    """
    tokens = mark_continuations(words)
    balanced = [token not in ("(", ")") for token in tokens]
    spans: list[Span] = [(at, at + 1) for at in range(len(words))]
    children: list[tuple[int, int]] = []
    groups = list(range(len(words)))
    scores = [score_binding(tokens, balanced, spans[at], spans[at + 1]) for at in range(len(words) - 1)]
    while scores:
        at = scores.index(max(scores))
        left, right = groups[at : at + 2]
        merged = spans[left][0], spans[right][1]
        if tokens[merged[0]] == "(" and tokens[merged[1] - 1] == ")":
            balanced[merged[0]] = balanced[merged[1] - 1] = True
        groups[at : at + 2] = [len(spans)]
        spans.append(merged)
        children.append((left, right))
        del scores[at]
        for near in range(max(0, at - 1), min(at + 1, len(scores))):
            scores[near] = score_binding(tokens, balanced, spans[groups[near]], spans[groups[near + 1]])
    return PartTree(spans, children)


def mark_continuations(words: Sequence[str]) -> list[str]:
    """Return the words without white space; ``##`` marks one that goes on where the word before it ended."""
    tokens: list[str] = []
    for at, word in enumerate(words):
        goes_on = (
            at > 0
            and ENDS_IN_MARK.match(words[at - 1]) is None
            and STARTS_IN_LETTER.match(word) is not None
            and tokens[-1] != ""
        )
        tokens.append(f"##{word.strip()}" if goes_on else word.strip())
    return tokens


def score_binding(tokens: Sequence[str], balanced: Sequence[bool], left: Span, right: Span) -> int:
    """Return how closely two neighbouring groups are bound, by the rules and numbers of shap's ``merge_score``.

    Parameters
    ----------
    tokens : sequence of str
        As ``mark_continuations`` returns them.
    balanced : sequence of bool
        One a token; false for a bracket whose partner is not in its group yet.
    left, right : span
        The two groups, as ranges of tokens.
    """
    first, last = tokens[left[0]], tokens[left[1] - 1]
    head, tail = tokens[right[0]], tokens[right[1] - 1]
    several = right[1] - right[0] > 1
    score = left[0] - right[1]  # small groups first
    score += 20 * head.startswith("##")
    score += 15 * (head == "'" and (not several or (right[1] - right[0] == 2 and tail in ("t", "s"))))
    score += 15 * (last == "'" and head in ("t", "s"))
    score -= 1000 * (is_control(first) != is_control(tail))
    score -= 100 * (head == "(" and not balanced[right[0]])
    score -= 100 * (last == ")" and not balanced[left[1] - 1])
    score -= 2 * (first == "(")
    score -= 2 * (last in CONNECTORS or head in CONNECTORS)
    score -= 10 * (last == ",") + 20 * (last in SENTENCE_ENDS)
    if head == "," or head in SENTENCE_ENDS:  # to reach across it costs more than to take it in
        score -= (10 if head == "," else 20) if several else 1
    return score


def is_control(token: str) -> bool:
    """Return whether ``token`` is in square brackets, as a tokenizer's own tokens are."""
    return token.startswith("[") and token.endswith("]")
