"""The words of a text, as a person would point at them: the parts that explanations give numbers to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

from dlpipe.task.row_parts import PartTree, RowParts
from dlpipe.task.texts.word_tree import build_word_tree

# A word keeps its punctuation, so that taking the word away takes the punctuation with it. HTML tags, runs of
# emoji, and single Han or kana characters (between which stands no space) are words of their own.
EMOJI = r"\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff"
JOINER = r"\ufe0e\ufe0f\u200d\u20e3\U000e0020-\U000e007f"
HAN = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
MARK = r"!-/:;=-@\[-`{-~\u00a1-\u00bf\u2010-\u205e\u3001-\u303f\uff01-\uff0f\uff1a-\uff20"  # all but '<'
LETTER = rf"[^\s<{MARK}{EMOJI}{JOINER}{HAN}]"
WORD = re.compile(
    r"<[^<>]{1,40}>"  # <br />
    rf"|[{EMOJI}][{EMOJI}{JOINER}]*"
    rf"|[{MARK}]*[{HAN}][{MARK}]*"
    rf"|[{MARK}]*{LETTER}+(?:(?:['’_-]|[.,/:](?=\d)){LETTER}+)*[{MARK}]*"  # don't, well-made, 7/10, "good!"
    rf"|[{MARK}]+"  # a dash between spaces
    r"|\S"
)
EDGES = re.compile(rf"^[<{MARK}]+|[<{MARK}]+$")


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of ``text``, each with the white space after it: joined, they are ``text`` again.

    Examples
    --------
    >>> split_words("Not bad... it's (almost) great!")
    ('Not ', 'bad... ', "it's ", '(almost) ', 'great!')
    >>> split_words("Boring.<br />Skip it \U0001f44e\U0001f44e")
    ('Boring.', '<br />', 'Skip ', 'it ', '👎👎')
    >>> split_words("   ")
    ()
    """
    starts = [match.start() for match in WORD.finditer(text)]
    if not starts:
        return ()
    ends = [*starts[1:], len(text)]
    starts[0] = 0
    return tuple(text[start:end] for start, end in zip(starts, ends, strict=True))


def normalize_word(word: str) -> str:
    """Return ``word`` without case and outer punctuation, to count it with its like; a lone dash stays itself.

    Examples
    --------
    >>> normalize_word('"Good!" '), normalize_word("don't"), normalize_word("--")
    ('good', "don't", '--')
    """
    stripped = word.strip()
    return EDGES.sub("", stripped).casefold() or stripped


class WordParts(RowParts):
    """The words of a text; one that is left out is left out of the text.

    Parameters
    ----------
    text : str
    words : tuple of str
        Its words, as far as the model reads them.
    column : str
        The column of the table in which it stands.
    """

    def __init__(self, text: str, words: tuple[str, ...], column: str) -> None:
        seen = "".join(words)
        self._text, self._all_seen = text, seen == text
        self.shown, self.names = words, tuple(map(normalize_word, words))
        self.columns, self.texts = (column,) * len(words), (column,)
        self.whole = len(seen) >= len(text.rstrip())

    @cached_property
    def tree(self) -> PartTree:
        """The tree that binds words as shap's masker of texts does."""
        return build_word_tree(self.shown)

    def keep(self, kept: Sequence[bool]) -> str:
        """Return the text of the kept words, with single blanks; the text itself where it is all of them."""
        return self._text if self._all_seen and all(kept) else join_words(self.shown, kept)


def join_words(words: Sequence[str], kept: Sequence[bool]) -> str:
    """Return the text of the words that are kept, with single blanks, as shap's masker leaves it.

    Examples
    --------
    >>> join_words(["So ", "<br />", "good,  ", "really"], [True, False, True, True])
    'So good, really'
    """
    shown = (word if keep else " " for word, keep in zip(words, kept, strict=True))
    return " ".join("".join(shown).split())


def split_seen_words(predictor: Any, text: str) -> tuple[str, ...]:
    """Return the words of the part of ``text`` that the model reads, ``max_length`` of them at most.

    The predictor's ``count_seen_characters(text)`` returns how many characters that are; one without such a method
    is taken to read the first ``max_length`` words.
    """
    count: Callable[[str], int] | None = getattr(predictor, "count_seen_characters", None)
    if count is None:
        return split_words(text)[: predictor.max_length]
    return split_words_until(text, count(text), predictor.max_length)


def split_seen_words_of_each(predictor: Any, texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return what ``split_seen_words`` does, for each of two texts that the model reads together.

    The predictor's method is ``count_seen_of_each``: how much of a text is read depends on the other one.
    """
    count: Callable[[Sequence[str]], list[int]] | None = getattr(predictor, "count_seen_of_each", None)
    if count is None:
        return [split_words(text)[: predictor.max_length] for text in texts]
    ends = count(texts)
    return [split_words_until(text, end, predictor.max_length) for text, end in zip(texts, ends, strict=True)]


def split_words_until(text: str, end: int, most: int) -> tuple[str, ...]:
    """Return the words of the first ``end`` characters of ``text``, ``most`` of them at most.

    The last one takes all that is left: a tokenizer can take a million characters, and as many words, for one
    unknown token.
    """
    words = split_words(text[:end])
    return words if len(words) <= most else (*words[: most - 1], "".join(words[most - 1 :]))


def tokenize_for_shap(text: str, return_offsets_mapping: bool = True) -> dict[str, list[Any]]:
    """Return the words of ``text`` and where each stands, in the form that ``shap.maskers.Text`` asks for.

    A text without words is its own single word, since shap looks up the blank that masks the others.
    """
    words = list(split_words(text)) or list(filter(None, [text]))
    ends = list(accumulate(map(len, words)))
    return {"input_ids": words, "offset_mapping": list(zip([0, *ends], ends, strict=False))}
