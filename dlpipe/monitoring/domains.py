"""A classifier that tries to tell new rows from those of the training table.

If nothing changed it can only guess: its AUC on rows that it has not seen is about 0.5. It sees changes that no
count of words or labels shows, such as other subjects. Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample
Tests", ICLR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlpipe.task import Inputs, Row

    Floats = npt.NDArray[np.floating[Any]]
    Integers = npt.NDArray[np.integer[Any]]

Weights = tuple[tuple[str, float], ...]

FOLDS = 5
TELLING = 12  # features that are shown of each side
NEWEST = 8
"""So many of the new rows that look least like old ones are shown."""


@dataclass(frozen=True)
class Domains:
    """How well new rows can be told from old ones.

    Attributes
    ----------
    auc : float
        Cross-validated: the chance that of a new and an old row the new one is taken for the newer.
    p_value : float
        Mann and Whitney's, one-sided, on its scores of rows that it has not seen.
    new, old : tuple of (name, weight)
        The features by which it tells them, the strongest first: words, where rows are texts.
    newest : tuple of int
        The places of the new rows that look least like old ones, the newest first, equal rows once.
    """

    auc: float
    p_value: float
    new: Weights
    old: Weights
    newest: tuple[int, ...] = ()


def tell_apart(old: Sequence[Row], new: Sequence[Row], *, inputs: Inputs, seed: int) -> Domains:
    """Return how well a logistic regression on plain features tells ``new`` from ``old`` rows.

    Equal rows are in one fold: a classifier would know them by heart otherwise, and see a shift in repeats alone.

    Parameters
    ----------
    old, new : sequence of rows
        Of the training table, and those that came in.
    inputs : Inputs
        Gives the features: of texts, the TF-IDF of their words.
    seed : int
        Of the folds.

    Examples
    --------
    >>> from dlpipe.task import find_task
    >>> inputs = find_task("text-classification").inputs
    >>> old, new = [f"film {n % 7} plot" for n in range(60)], [f"phone {n % 7} cable" for n in range(30)]
    >>> found = tell_apart(old, new, inputs=inputs, seed=0)
    >>> found.auc, found.p_value < 1e-6, {word for word, _ in found.new[:2]} == {"phone", "cable"}
    (1.0, True, True)
    """
    import numpy as np
    from scipy.stats import mannwhitneyu

    rows = [*old, *new]
    is_new = np.repeat([0, 1], [len(old), len(new)])
    # Mann-Whitney's U over the number of pairs is the AUC, so that size and p-value are of one statistic
    scores = _score_unseen(rows, is_new, inputs, seed)
    found = mannwhitneyu(scores[is_new == 1], scores[is_new == 0], alternative="greater")
    auc = float(found.statistic) / (len(old) * len(new))
    first, last = _find_telling_features(rows, is_new, inputs)
    return Domains(auc, float(found.pvalue), last, first, _find_newest(new, scores[is_new == 1]))


def _find_newest(rows: Sequence[Row], scores: Floats) -> tuple[int, ...]:
    """Return the places of the rows with the highest scores, equal rows once."""
    found: dict[str, int] = {}
    for place in (-scores).argsort(kind="stable").tolist():
        found.setdefault(repr(rows[place]), place)
        if len(found) == NEWEST:
            break
    return tuple(found.values())


def _score_unseen(rows: Sequence[Row], is_new: Integers, inputs: Inputs, seed: int) -> Floats:
    """Return for each row how new it looks to a classifier of the other folds, as a rank within its fold.

    Scores of different folds come from different classifiers and cannot be compared.
    """
    import numpy as np
    from scipy.stats import rankdata

    scores = np.zeros(len(rows))
    folds = _assign_folds(rows, is_new, seed)
    for number in range(FOLDS):
        seen, unseen = np.flatnonzero(folds != number).tolist(), np.flatnonzero(folds == number).tolist()
        learnt = [rows[place] for place in seen]
        model = _make_classifier(learnt, inputs).fit(learnt, is_new[seen])
        scores[unseen] = rankdata(model.decision_function([rows[place] for place in unseen])) / (len(unseen) + 1)
    return scores


def _assign_folds(rows: Sequence[Row], is_new: Integers, seed: int) -> Integers:
    """Return the fold of each row: equal rows in one, and new ones spread evenly.

    scikit-learn's StratifiedGroupKFold does the same in seconds instead of milliseconds.
    """
    import numpy as np

    names = [row if isinstance(row, str) else repr(row) for row in rows]
    places = np.unique(np.array(names, dtype=str), return_inverse=True)[1]
    folds, chance = np.zeros(places.max() + 1, dtype=np.int64), np.random.default_rng(seed)
    new = np.bincount(places, weights=is_new) > 0
    for some in (np.flatnonzero(new), np.flatnonzero(~new)):
        folds[chance.permutation(some)] = np.arange(len(some)) % FOLDS
    return folds[places]


def _make_classifier(rows: Sequence[Row], inputs: Inputs) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # balanced: there are 2,000 old rows by default and as few as 50 new ones
    # liblinear needs no BLAS, whose threads would spin on steps as small as these
    linear = LogisticRegression(solver="liblinear", class_weight="balanced", random_state=0)
    return make_pipeline(inputs.make_domain_featurizer(rows), linear)


def _find_telling_features(rows: Sequence[Row], is_new: Integers, inputs: Inputs) -> tuple[Weights, Weights]:
    """Return the names of the features that speak most for old and for new rows; none where they have no names."""
    model = _make_classifier(rows, inputs).fit(list(rows), is_new)
    if not hasattr(model[0], "get_feature_names_out"):
        return (), ()
    names, weights = model[0].get_feature_names_out(), model[1].coef_[0]
    order = weights.argsort(kind="stable")
    old = tuple((str(names[place]), float(weights[place])) for place in order[:TELLING] if weights[place] < 0)
    new = tuple(
        (str(names[place]), float(weights[place])) for place in order[::-1][:TELLING] if weights[place] > 0
    )
    return old, new
