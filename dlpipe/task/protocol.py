"""The protocol of a task: what the author of a task writes, and all that the rest of dlpipe knows of it.

A task has two halves. ``Inputs`` knows what is read: the columns of a row, how rows become batches of a network,
which network that is, how rows are explained. ``Target`` knows what is predicted: labels, losses, scores, how a
prediction looks. Text classification is texts as inputs and one class of several as target; most new tasks are an
old half with a new one.

Between the two stand *outputs*: float32 of shape (n_rows, n_outputs), whatever the task. Of one class of several
they are probabilities, of several labels a probability for each, of a number that number.

What is called when, in the order of a train flow and what comes after it; what stands in brackets has a default:

start            Inputs  [check_settings]
                 Target  [check_thresholds]
tune and train   Inputs  [make_encoding_key]  [list_settings]  encode_splits  build_network
                 Target  learn_coding  encode_labels  compute_loss  score_epoch  measure_chance
end of training  Inputs  assemble_model
                 Target  activate  [learn_decision]  [doubt_decision]
open a model     Inputs  load_model  open_predictor
                 Target  activate
evaluate         Inputs  find_columns  read_rows  format_row  make_featurizer (of the baseline)
                 Target  fit_baseline  evaluate  [find_known_rows]
gate, cards      Target  [make_checks]  [describe]  [measure_recalls]  [make_tables]  [draw_figures]
register         Inputs  make_example  [export_engines]
                 Target  list_frame_fields  decide  [measure_accuracy]  [measure_agreement]  [get_output_scale]
score a table    Inputs  find_columns  [deduplicate_rows]
                 Target  list_prediction_fields  make_prediction_columns
answer requests  Inputs  read_request  [name_values]
                 Target  make_frame  [make_records]
take labels      Target  [find_label_error]
explain          Inputs  split_parts (unless not_explained)  [attribute_parts]
                 Target  [activate_tensor]
look at scored   Target  [measure_sureness]  make_prediction_series
monitor          Inputs  make_drift_series  [make_domain_featurizer]
                 Target  [read_records]  make_prediction_series  [score_predictions]  [compare_quality]
compare          Target  [resample_metrics]  [measure_row_errors]  [list_groups]  [read_outputs]  [format_label]

Both halves are made once, when the task's module is imported, and shared by all models and threads of a process:
they keep no state. What a training learns stands in the model's *card*, JSON that most methods are given. Imports
of torch, pandas and the like belong inside the methods, since ``dlpipe`` itself imports without them.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from dlpipe.errors import ExplanationError
from dlpipe.task.evaluation import Evaluation, ScoreTable
from dlpipe.task.gate import Check, Thresholds, check_bounds
from dlpipe.task.predictor import Predictor, Row
from dlpipe.task.quality import Quality, compare_shares
from dlpipe.task.row_parts import PartAttributions, RowParts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure

    from dlpipe.tables import TableSettings, TableVersion
    from dlpipe.task.batches import EncodedRows
    from dlpipe.task.columns import Suggest
    from dlpipe.task.model import Model
    from dlpipe.task.settings import TrainingSettings

    Floats = npt.NDArray[np.floating[Any]]

Say = Callable[[str], None]
"""Takes a line of text on how far the work is, and prints it."""
OutputKind = Literal["shares", "probabilities", "numbers"]
"""What outputs are: shares of a whole (a row sums to 1), a probability each, or numbers of any size."""


@dataclass(frozen=True)
class Task:
    """What is learnt: a name, as settings files write it, and its two halves.

    Attributes
    ----------
    name : str
        Such as ``text-classification``; the entry point of the group ``dlpipe.tasks`` has the same.
    inputs : Inputs
    target : Target
    data : type
        The section ``[data]``: a dataclass that adds the names of columns to ``TableSettings`` and whose ``form``
        (a ``dlpipe.tables.RowForm``) says what a row of the table is.
    suggest : callable, optional
        Which columns of a file are meant, for `dlpipe init`: takes the first rows and the settings of ``[data]``
        that are known, and returns all that name columns. Without it, `dlpipe init` refuses the task.
    """

    name: str
    inputs: Inputs
    target: Target
    data: type[TableSettings]
    suggest: Suggest | None = None

    def fit_baseline(self, rows: Sequence[Row], labels: Sequence[Any], *, seed: int) -> Baseline:
        """Return the plain model that a network has to beat, fitted to rows and their labels.

        Parameters
        ----------
        rows : sequence of n_rows rows
            Of the train split, as ``Inputs.read_rows`` returns them.
        labels : sequence of n_rows labels
            As the table has them.
        seed : int
        """
        features = self.inputs.make_featurizer(rows)
        return self.target.fit_baseline(
            features, rows, labels, seed=seed, boosted=self.inputs.has_boosted_baseline
        )


@dataclass(frozen=True)
class Coding:
    """What a target has learnt of the labels of the train split, before any network.

    Attributes
    ----------
    outputs : tuple of str
        The names of the network's outputs: classes, labels, or ``("value",)``. A model's card has them under
        ``labels``.
    more : mapping
        Numbers that JSON can hold, such as the mean by which a target is scaled; a model's card has them under
        ``decision``.
    """

    outputs: tuple[str, ...]
    more: Mapping[str, Any] = field(default_factory=dict)


CONFIDENCE = 0.95


@dataclass(frozen=True)
class Chance:
    """What guessing gives on the valid split, in the score that decides.

    Attributes
    ----------
    guess : float
        The score of guessing.
    error : callable
        Takes a score and returns about its standard error on these rows.
    rows : int
    words : str
        What the score is called in a sentence, such as ``macro F1``.
    """

    guess: float
    error: Callable[[float], float]
    rows: int
    words: str

    def bound_guess(self, *, confidence: float = CONFIDENCE, comparisons: int = 1) -> float:
        """Return the score that the best of so many guesses stays below with this confidence."""
        error = self.error(self.guess)
        return self.guess + self.bound_difference(error, confidence=confidence, comparisons=comparisons)

    @staticmethod
    def bound_difference(error: float, *, confidence: float, comparisons: int) -> float:
        """Return what the largest of so many differences stays below by chance (Bonferroni's correction).

        Parameters
        ----------
        error : float
            The standard error of each difference.
        confidence : float
            Between 0 and 1, of all comparisons together.
        comparisons : int

        Examples
        --------
        >>> [round(Chance.bound_difference(1.0, confidence=0.95, comparisons=number), 2) for number in (1, 3)]
        [1.64, 2.13]
        """
        return error * NormalDist().inv_cdf(1 - (1 - confidence) / comparisons)


@dataclass(frozen=True)
class DriftSeries:
    """Values that are compared between old rows and new ones, to see whether they drift.

    Attributes
    ----------
    name : str
        Of the signal, a word, such as ``length``.
    words : str
        What is compared, as a sentence goes on: ``words in a text``.
    values : sequence of float, or of str
        One for each row, without missing ones: numbers are compared by their distribution, strings by how often
        each occurs.
    """

    name: str
    words: str
    values: Sequence[float] | Sequence[str]


class Baseline(ABC):
    """A fitted plain model."""

    @property
    def decision(self) -> Mapping[str, Any]:
        """What turns its outputs into decisions, as a model's card has it under ``decision``."""
        return {}

    @abstractmethod
    def predict_outputs(self, rows: Sequence[Row], *, outputs: Sequence[str] | None = None) -> Floats:
        """Return outputs of shape (n_rows, n_outputs), columns in the order of ``outputs``, by default its own.

        An output that the baseline does not know, since its train rows lacked the class, is 0.
        """


class Inputs(ABC):
    """What a task reads: rows of a table, and the networks that read them.

    A *row* is whatever the network reads of one row of the table: a text, a pair of texts, a mapping of columns to
    values. It need not be hashable, but can be pickled, and equal rows print equally (``repr``): explaining and
    monitoring find equal rows by these. ``None`` is a missing row.
    """

    training: type[TrainingSettings]
    """The section ``[training]``: a frozen dataclass that adds settings of these networks, with defaults."""
    is_single_text: bool = False
    """Whether a row is one text: a pipeline cleans it and tells its language before a model reads it."""
    packages: tuple[str, ...] = ()
    """The distributions that opening and using a model needs, beside those of every model (torch, numpy, ...)."""

    # rows ------------------------------------------------------------------------------------------------

    @abstractmethod
    def find_columns(self, table: TableVersion, card: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Return the columns of ``table`` that a model reads, without ``row_id``, ``label`` and ``split``.

        Flows call it before they load a model, to refuse a table in the first step; evaluation, scoring,
        explaining and monitoring call it to read no more columns than these.

        Parameters
        ----------
        table : TableVersion
            Its ``columns`` are pairs of name and Delta's type; no row needs to be read.
        card : mapping, optional
            That of the model that is to read the table. Without it, the model is one that is trained on the table,
            or was: a task whose columns are always the same needs no card.

        Raises
        ------
        SchemaMismatch
            When a column is missing or has values of another type; the message names it and says how to mend it.
        """

    @abstractmethod
    def read_rows(self, rows: pa.Table | pa.RecordBatch) -> list[Row]:
        """Return the rows of a table, as many as there are and in its order.

        Parameters
        ----------
        rows : pyarrow.Table or RecordBatch
            The columns that ``find_columns`` returned. Nulls are read too: as an empty text, say.
        """

    def deduplicate_rows(self, rows: pa.Table) -> tuple[list[Row], np.ndarray]:
        """Return the different rows, and for each row of ``rows`` the index of its own among them.

        Scoring predicts each different row once. By default rows are the same whose columns are; override it where
        there is a faster way, or where rows that look different are read alike.

        Parameters
        ----------
        rows : pyarrow.Table
            The columns that ``find_columns`` returned.

        Returns
        -------
        list of rows, int64 array of shape (n_rows,)
            In the order in which they first occur.
        """
        from dlpipe.task.distinct import number_rows

        first, which = number_rows(rows)
        return self.read_rows(rows.take(first)), which

    @abstractmethod
    def read_request(self, given: Any, card: Mapping[str, Any]) -> list[Row]:
        """Return the rows in what MLflow's ``predict``, `dlpipe predict` or a client gives; ``None`` if missing.

        Parameters
        ----------
        given : DataFrame, dict of columns, list of records, list of values or one value
            ``dlpipe.task.requests`` has what tells these apart.
        card : mapping
            That of the model that is to read the rows.

        Raises
        ------
        SettingError
            When it holds something else; the message says what to pass.
        """

    @abstractmethod
    def format_row(self, row: Row) -> str:
        """Return the row as people read it, for cards and lists of mistakes; they cut what is too long."""

    def name_values(self, row: Row) -> Mapping[str, Any]:
        """Return the values of a row by the names of their columns in the table, as JSON can hold them.

        A server's log has rows so, from which they can be added to a table. By default they are those of
        ``make_example``: override it where rows are no mappings, for a frame takes a millisecond to make.
        """
        return row if isinstance(row, Mapping) else dict(self.make_example([row]).to_dict("records")[0])

    @abstractmethod
    def make_example(self, rows: Sequence[Row]) -> pd.DataFrame:
        """Return rows as the input example of a registered model: a frame that ``read_request`` reads back."""

    # training --------------------------------------------------------------------------------------------

    def check_settings(self, settings: TrainingSettings) -> None:
        """Raise where a training with these settings cannot begin, such as ``BackboneNotFound``.

        Called in the first step of a run, before rows are read. By default every setting is good.
        """
        return None

    def make_encoding_key(self, settings: TrainingSettings) -> tuple[Any, ...]:
        """Return the settings that decide what ``encode_splits`` returns, as something hashable.

        The trials of a search whose keys are equal share encoded rows. By default no setting does.
        """
        return ()

    def list_settings(self, settings: TrainingSettings, table: TableVersion) -> dict[str, Any]:
        """Return the settings by name that make a difference to a training on ``table``: its card shows them.

        By default all but those that ``settings.find_ineffective`` names.
        """
        values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        idle = settings.find_ineffective(values)
        return {name: value for name, value in values.items() if name not in idle}

    @abstractmethod
    def encode_splits(
        self, table: TableVersion, splits: Sequence[str], settings: TrainingSettings, *, say: Say
    ) -> dict[str, EncodedRows]:
        """Return what the network reads of each split, in the order of its rows.

        Called once a training, or once for all trials of a search. What takes long can be kept beside the table
        for the next training: see ``dlpipe.task.array_cache``.

        Parameters
        ----------
        table : TableVersion
        splits : sequence of str
            ``train`` and ``valid``.
        settings : TrainingSettings
            Of the class ``training``.
        say : callable
            Gets progress as lines of text.
        """

    @abstractmethod
    def build_network(self, encoded: EncodedRows, coding: Coding, settings: TrainingSettings) -> torch.nn.Module:
        """Return a new network with one output for each of ``coding.outputs``.

        Its ``forward`` takes what ``EncodedRows.make_batch`` returns, as keyword arguments, and returns logits:
        floats of shape (n, n_outputs). Strategies that freeze something freeze its attribute ``encoder``; a
        network without one is trained whole.

        Parameters
        ----------
        encoded : EncodedRows
            Of the train split; their widths may be those of the network.
        coding : Coding
        settings : TrainingSettings
            Its seed is torch's already: draw weights from torch's generator, and they are the same next time.
        """

    @abstractmethod
    def assemble_model(
        self,
        network: torch.nn.Module,
        encoded: EncodedRows,
        settings: TrainingSettings,
        card: Mapping[str, Any],
    ) -> Model:
        """Return the trained network as files, from which alone ``open_predictor`` makes it again.

        Parameters
        ----------
        network : torch.nn.Module
            With the weights of the best epoch; it may be on a GPU.
        encoded : EncodedRows
            Of the train split; they may hold what was learnt of its rows, such as scales.
        settings : TrainingSettings
        card : mapping
            ``task``, ``labels`` (the names of the outputs) and, where the target has some, ``decision``. Add what
            is of the inputs and write it to ``dlpipe.json``; what changes answers beside the weights goes under
            ``decision``, which counts for the model's digest.
        """

    # using a model ---------------------------------------------------------------------------------------

    @abstractmethod
    def load_model(self, folder: Path) -> Model:
        """Return the model whose files are in ``folder``; ``Model.load`` of the right class does it.

        Raises
        ------
        ModelNotFound
            When a file is missing.
        """

    @abstractmethod
    def open_predictor(
        self,
        model: Model,
        folder: Path | None,
        *,
        threads: int | None = None,
        device: str | None = None,
        engine: str | None = None,
    ) -> Predictor:
        """Return a predictor; ``dlpipe.task.torch_predictor.TorchPredictor`` is one for small networks.

        Parameters
        ----------
        model : Model
            As ``assemble_model`` or ``load_model`` returned it.
        folder : Path, optional
            Where the model's engines are, if it has some; None for a model that was just trained.
        threads : int, optional
            Of this process; by default one for each core that it may use.
        device : str, optional
            For torch, such as ``"cuda:1"``; by default a GPU where there is one.
        engine : str, optional
            By default the one chosen when the model was registered; ``"exact"`` asks for the fastest one with 32
            bits. Inputs with torch alone take ``"torch"`` and ``"exact"`` for it.

        Raises
        ------
        EngineUnavailable
            When ``engine`` names one that cannot be used.
        """

    def export_engines(self, model: Model, rows: Sequence[Row], labels: Sequence[Any]) -> Any:
        """Return ``model`` with other engines than torch, measured on labelled rows; by default itself.

        What is returned can be registered, and has ``engines``, which is ``None`` where there is only torch.

        Parameters
        ----------
        model : Model
        rows : sequence of n_rows rows
            Of the valid split.
        labels : sequence of n_rows labels
            As the table has them.
        """
        return model

    # baseline, drift -------------------------------------------------------------------------------------

    has_boosted_baseline: bool = False
    """Whether the plain model over these features is gradient boosting; otherwise it is linear."""

    @abstractmethod
    def make_featurizer(self, rows: Sequence[Row]) -> Any:
        """Return an unfitted transformer of scikit-learn from rows to features, numbers of about one size.

        The plain baseline is fitted on them. A linear model takes sparse features; boosting takes dense ones.

        Parameters
        ----------
        rows : sequence of rows
            Those to which it will be fitted, so that it can suit them.
        """

    rows_noun: str = "records"
    """What rows are called, in the plural."""
    features_noun: str = "features"
    """What rows are told apart by, in the plural."""

    def make_domain_featurizer(self, rows: Sequence[Row]) -> Any:
        """Return the transformer whose features tell new rows from old ones; by default ``make_featurizer``'s.

        Monitoring fits a linear classifier of old against new over them. Features that tell them apart are listed
        on its card, by their names where the transformer has ``get_feature_names_out``.
        """
        return self.make_featurizer(rows)

    @abstractmethod
    def make_drift_series(self, rows: Sequence[Row]) -> list[DriftSeries]:
        """Return what is compared of old rows and new ones, each by itself; an empty list for nothing.

        Called for both. Whether a classifier can tell them apart is looked at anyway, see
        ``make_domain_featurizer``.
        """

    # explanation -----------------------------------------------------------------------------------------

    not_explained: str = ""
    """Why rows are not explained, in one line; empty where they are. Then ``split_parts`` must be written."""

    def split_parts(self, row: Row, predictor: Predictor) -> RowParts:
        """Return the parts of a row that an explanation gives numbers to, with the tree over them.

        They are what the model reads of the row: the words of a text, as far as it reads it, or columns. What
        stands for a column that is left out (the median of the train split, say) is in the model's card, where
        ``assemble_model`` has put it. ``dlpipe.task.row_parts`` has parts for columns, and joins several.
        """
        raise NotImplementedError

    def attribute_parts(
        self,
        predictor: Predictor,
        rows: Sequence[Row],
        parts: Sequence[RowParts],
        target: Target,
        *,
        steps: int,
    ) -> list[PartAttributions]:
        """Return what each part of each row adds to each output, by gradients; by default there are none.

        Parameters
        ----------
        predictor : Predictor
            As ``open_predictor`` returned it.
        rows : sequence of n_rows rows
        parts : sequence of n_rows RowParts
            As ``split_parts`` returned them.
        target : Target
            ``activate_tensor`` makes outputs of what the network gives.
        steps : int
            Points on the way from no part to all, of integrated gradients.

        Raises
        ------
        ExplanationError
            When there are no gradients of this predictor; the message says what to do.
        """
        raise ExplanationError("There are no gradients of these rows. Explain with method 'partition'.")


class Target(ABC):
    """What a task predicts.

    A *label* is what the table's column ``label`` holds: a str for one class of several, a list of str for several
    labels, a float for a number.
    """

    deciding_metric: str
    """The score of the valid split that chooses epochs and trials, such as ``val_f1``; more is better."""
    headline: str
    """The metric of an evaluation that is named first, such as ``accuracy``."""
    lower_is_better: frozenset[str] = frozenset()
    """The metrics of an evaluation of which less is better."""
    gate: type[Thresholds]
    """The section ``[gate]``: a dataclass that adds bounds to ``Thresholds``, all of its fields with defaults."""
    has_classes: bool = False
    """Whether a prediction is one class of several, so that MLflow's evaluator of classifiers can judge it."""
    has_right_rows: bool = True
    """Whether a prediction is right or wrong; of numbers, one is only closer than another."""
    right_row_metrics: frozenset[str] = frozenset()
    """Metrics that move only where a row turns right or wrong: an exact test of those rows must agree."""

    # training --------------------------------------------------------------------------------------------

    @abstractmethod
    def learn_coding(self, labels: Sequence[Any]) -> Coding:
        """Return what the labels of the train split say of the outputs: their names and, say, their scale."""

    @abstractmethod
    def encode_labels(self, labels: Sequence[Any], coding: Coding) -> np.ndarray:
        """Return labels as ``compute_loss`` takes them: an array whose first axis is the rows.

        Called for the train and the valid split, both with the coding of the train split. A class or a label that
        only the valid split has does not get here: an ingest refuses such splits.
        """

    @abstractmethod
    def compute_loss(self, logits: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar that can be differentiated.

        Parameters
        ----------
        logits : tensor of shape (n, n_outputs)
            What the network gives; bfloat16 where a training asks for it.
        encoded : tensor of n encoded labels
            With the type and the trailing shape of ``encode_labels``.
        """

    @abstractmethod
    def score_epoch(self, logits: torch.Tensor, encoded: torch.Tensor) -> dict[str, float]:
        """Return scores of the whole valid split: ``val_loss``, ``deciding_metric``, and others named ``val_...``.

        Parameters
        ----------
        logits : float32 tensor of shape (n_rows, n_outputs)
        encoded : tensor of n_rows encoded labels
        """

    @abstractmethod
    def measure_chance(self, encoded: np.ndarray) -> Chance:
        """Return what guessing gives in ``deciding_metric`` on these encoded labels, those of the valid split.

        A training whose best score is no better is warned about, and a search tells real gains from luck by it.
        """

    has_decision: bool = False
    """Whether ``learn_decision`` returns something: it costs a prediction of the valid split."""

    def learn_decision(self, outputs: Floats, encoded: np.ndarray, coding: Coding) -> dict[str, Any]:
        """Return what turns outputs into decisions: thresholds by label, how wide an interval is.

        It is kept in the model's card under ``decision``, with ``coding.more``, and counts for its digest.

        Parameters
        ----------
        outputs : float32 array of shape (n_rows, n_outputs)
            Of the valid split, by the trained network, as ``activate`` returns them.
        encoded : array of n_rows labels
            As ``encode_labels`` returned them.
        coding : Coding
            Of the train split.

        Returns
        -------
        dict
            That JSON can hold.
        """
        return {}

    def doubt_decision(self, encoded: np.ndarray, coding: Coding) -> str:
        """Return why the valid split is too small for what ``learn_decision`` chooses; empty where it is not.

        Called at the end of a training, which prints it.

        Parameters
        ----------
        encoded : array of n_rows labels
            Of the valid split, as ``encode_labels`` returned them.
        coding : Coding
            Of the train split.
        """
        return ""

    # predictions -----------------------------------------------------------------------------------------

    @abstractmethod
    def activate(self, logits: Floats, card: Mapping[str, Any]) -> Floats:
        """Return outputs from what the network gives: a softmax, say.

        It works row by row, since predictors call it for each batch.

        Parameters
        ----------
        logits : float array of shape (n, n_outputs)
        card : mapping
            Of the model. At the end of a training, before there is a card, it has ``coding.more`` under
            ``decision`` and nothing else.
        """

    @abstractmethod
    def decide(self, outputs: Floats, card: Mapping[str, Any]) -> Sequence[Any]:
        """Return what is decided by each row of outputs, in the form of a label: a class, labels, a number.

        Parameters
        ----------
        outputs : float array of shape (n_rows, n_outputs)
        card : mapping
            Of the model: ``labels`` are the names of the outputs.
        """

    def measure_accuracy(self, outputs: Floats, labels: Sequence[Any], card: Mapping[str, Any]) -> float:
        """Return the share of rows, 0 to 1, that are decided right; by default those decided as their label is.

        Engines are compared by it when a model is registered.

        Parameters
        ----------
        outputs : float array of shape (n_rows, n_outputs)
        labels : sequence of n_rows labels
        card : mapping
            Of the model.
        """
        decided = self.decide(outputs, card)
        return sum(own == true for own, true in zip(decided, labels, strict=True)) / len(outputs)

    def measure_agreement(self, outputs: Floats, others: Floats, card: Mapping[str, Any]) -> float:
        """Return the share of rows, 0 to 1, on which two engines decide the same.

        By default decisions must be equal; numbers never are, so a target of numbers allows a distance.

        Parameters
        ----------
        outputs, others : float arrays of shape (n_rows, n_outputs)
        card : mapping
            Of the model.
        """
        pairs = zip(self.decide(outputs, card), self.decide(others, card), strict=True)
        return sum(own == other for own, other in pairs) / len(outputs)

    def get_output_scale(self, card: Mapping[str, Any]) -> float:
        """Return the unit in which a difference of outputs is small or large: 1 for probabilities."""
        return 1.0

    output_kind: OutputKind = "numbers"
    """What outputs are, which decides how an explanation draws them."""

    def activate_tensor(self, logits: torch.Tensor, card: Mapping[str, Any]) -> torch.Tensor:
        """Return what ``activate`` does, in torch, so that it has gradients; by default there are none.

        Raises
        ------
        ExplanationError
            When there are no gradients of this target.
        """
        raise ExplanationError("There are no gradients of this target. Explain with method 'partition'.")

    @abstractmethod
    def list_prediction_fields(self) -> list[tuple[str, pa.DataType]]:
        """Return the columns of a predictions table that hold a prediction, the prediction itself first.

        The first is called ``predicted`` in every task that dlpipe brings. They are the same for all models of the
        task, since one table holds the predictions of many.
        """

    @abstractmethod
    def make_prediction_columns(self, outputs: Floats, card: Mapping[str, Any]) -> list[pa.Array]:
        """Return those columns for outputs of shape (n_rows, n_outputs), without NaN: no prediction is missing.

        The card is that of a model; of a baseline, it has ``labels`` and ``decision`` alone.
        """

    @abstractmethod
    def list_frame_fields(self, card: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the columns that a registered model's ``predict`` returns, each with its MLflow type.

        Types are ``string``, ``float``, ``double`` and the like; ``string[]`` is a list of strings. They stand in
        the model's signature, and may depend on its card: a column for each class, say.
        """

    @abstractmethod
    def make_frame(self, outputs: Floats, card: Mapping[str, Any]) -> pd.DataFrame:
        """Return those columns for outputs of shape (n_rows, n_outputs).

        A row of NaN is that of a missing row: its prediction is missing too.
        """

    def find_label_error(self, label: str, card: Mapping[str, Any]) -> str:
        """Return why a label for what was asked of a model is none that it knows; empty where it is one.

        By default each is taken; a task that learns labels which a model has not seen leaves it so.

        Parameters
        ----------
        label : str
            A class, a number as Python writes it, or several labels as a JSON list.
        card : mapping
            Of the model.
        """
        return ""

    def make_records(self, outputs: Floats, card: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of ``make_frame`` as dictionaries of Python's own values, for outputs without NaN.

        A server answers with them: a target that makes them without a frame saves most of a small request.
        """
        frame = self.make_frame(outputs, card)
        return [
            dict(zip(frame, row, strict=True))
            for row in zip(*(frame[name].tolist() for name in frame), strict=True)
        ]

    def read_records(self, records: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return what ``make_records`` made as the columns of ``list_prediction_fields``.

        By default columns of a record with the same names are taken, and one that it lacks is null.

        Parameters
        ----------
        records : sequence of mapping
            As JSON gives them back, each with a prediction. Those of a pipeline have more columns.
        """
        import pyarrow as pa

        fields = self.list_prediction_fields()
        return pa.table(
            [pa.array([row.get(name) for row in records], kind) for name, kind in fields],
            names=[name for name, _ in fields],
        )

    # evaluation ------------------------------------------------------------------------------------------

    @abstractmethod
    def fit_baseline(
        self, features: Any, rows: Sequence[Row], labels: Sequence[Any], *, seed: int, boosted: bool = False
    ) -> Baseline:
        """Return the plain model over ``features``, fitted: linear, or gradient boosting where ``boosted``.

        Parameters
        ----------
        features : unfitted transformer of scikit-learn
            As ``Inputs.make_featurizer`` returns it.
        rows : sequence of n_rows rows
            Of the train split.
        labels : sequence of n_rows labels
            As the table has them.
        seed : int
        boosted : bool
            ``Inputs.has_boosted_baseline``.
        """

    @abstractmethod
    def evaluate(
        self,
        outputs: Floats,
        labels: Sequence[Any],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
        row_ids: Sequence[str],
        shown: Sequence[str],
        seed: int = 0,
        resamples: int = 1000,
        worst: int = 20,
    ) -> Evaluation:
        """Return the scores of outputs against labels, each with its 95 % percentile bootstrap interval.

        Called for the model, its baseline and the champion, on the same rows of the test split.
        ``dlpipe.task.bootstrap`` makes the intervals.
        A target may take what follows ``decision`` as ``**options``, and hand it on.

        Parameters
        ----------
        outputs : float array of shape (n_rows, n_outputs)
        labels : sequence of n_rows labels
            As the table has them.
        names : sequence of n_outputs str
            Of the outputs.
        decision : mapping
            What turns outputs into decisions, as a model's card has it; empty where nothing does.
        row_ids : sequence of n_rows str
        shown : sequence of n_rows str
            Each row as people read it, see ``Inputs.format_row``.
        seed, resamples : int
            Of the bootstrap; the intervals are the same for the same seed.
        worst : int
            How many mistakes to keep.

        Raises
        ------
        EvaluationError
            When outputs and labels do not fit, or an output is not finite.
        """

    def find_known_rows(self, labels: Sequence[Any], names: Sequence[str]) -> tuple[Sequence[int], dict[str, int]]:
        """Return which rows a model can be judged on whose outputs have these names; by default all.

        A champion that lacks a class is compared on the other rows alone.

        Returns
        -------
        sequence of int
            The places of those rows.
        dict
            The labels of the other rows, sorted, each with the number of its rows.
        """
        return range(len(labels)), {}

    def check_thresholds(self, thresholds: Thresholds, names: Sequence[str]) -> None:
        """Raise ``SettingError`` where ``thresholds`` name an output that is not among ``names``.

        Called in the first step of a run, so that a misspelled class is seen before a training.
        """
        return None

    def make_checks(self, evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
        """Yield what the gate asks beside comparing; by default the bounds, each against its metric.

        Parameters
        ----------
        evaluation : Evaluation
            Of the candidate, as ``evaluate`` returned it.
        thresholds : Thresholds
            Of the class ``gate``.
        """
        yield from check_bounds(evaluation, thresholds)

    def describe(self, evaluation: Evaluation) -> str:
        """Return what the gate's verdict says at its end, such as the recall of each class; empty for nothing."""
        return ""

    def measure_recalls(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Return the share of each label's rows that is right; by default nothing, since a number has no label."""
        return {}

    def make_tables(self, evaluation: Evaluation, baseline: Evaluation) -> list[ScoreTable]:
        """Return tables of an evaluation beside its baseline's for the card, such as the scores of each class."""
        return []

    def draw_figures(self, evaluation: Evaluation, baseline: Evaluation) -> list[tuple[str, Figure]]:
        """Return pictures of an evaluation beside its baseline's for the card, each with its caption first."""
        return []

    # comparing -------------------------------------------------------------------------------------------

    def resample_metrics(
        self,
        counts: Floats,
        outputs: Floats,
        labels: Sequence[Any],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> Mapping[str, Floats]:
        """Return each metric of ``evaluate`` in many resamples of the rows, arrays of shape (n_resamples,).

        Two models are compared by it on the same resamples. By default each resample is evaluated, which takes
        seconds for a thousand: override it where there is a faster way.

        Parameters
        ----------
        counts : float array of shape (n_rows, n_resamples)
            How often each row is drawn, see ``dlpipe.task.bootstrap``.
        outputs : float array of shape (n_rows, n_outputs)
        labels : sequence of n_rows labels
        names : sequence of n_outputs str
        decision : mapping
            What turns outputs into decisions, as a model's card has it.
        """
        import numpy as np

        found: dict[str, list[float]] = {}
        for drawn in counts.T:
            places = np.repeat(np.arange(len(labels)), drawn.astype(np.int64)).tolist()
            ids = [str(place) for place in places]
            made = self.evaluate(
                outputs[places],
                [labels[place] for place in places],
                names=names,
                decision=decision,
                row_ids=ids,
                shown=ids,
                resamples=1,
                worst=0,
            )
            for metric, value in made.metrics.items():
                found.setdefault(metric, []).append(value)
        return {metric: np.array(values) for metric, values in found.items()}

    def measure_row_errors(
        self, outputs: Floats, labels: Sequence[Any], *, names: Sequence[str], decision: Mapping[str, Any]
    ) -> Floats:
        """Return how wrong each row is, of shape (n_rows,): 0 where it is right, by default 1 elsewhere.

        Parameters
        ----------
        outputs : float array of shape (n_rows, n_outputs)
        labels : sequence of n_rows labels
        names : sequence of n_outputs str
        decision : mapping
            What turns outputs into decisions, as a model's card has it.
        """
        import numpy as np

        decided = self.decide(outputs, {"labels": names, "decision": decision})
        return np.array([float(own != true) for own, true in zip(decided, labels, strict=True)])

    def list_groups(self, label: Any) -> Sequence[str]:
        """Return the classes or labels that a row with this label counts for; by default none."""
        return ()

    def read_outputs(self, predictions: pa.Table, names: Sequence[str]) -> Floats | None:
        """Return the outputs that ``make_prediction_columns`` was given; by default ``None``: they are not kept.

        Parameters
        ----------
        predictions : pyarrow.Table
            The columns of ``list_prediction_fields``, of one model, with at least one row.
        names : sequence of n_outputs str
            Of the outputs, in the order of the columns that are returned.
        """
        return None

    def format_label(self, label: Any) -> str:
        """Return a label, or what is decided, as people read it."""
        return str(label)

    # monitoring ------------------------------------------------------------------------------------------

    @abstractmethod
    def make_prediction_series(self, predictions: pa.Table) -> list[DriftSeries]:
        """Return what is compared of predictions of old rows and of new ones.

        Parameters
        ----------
        predictions : pyarrow.Table
            The columns of ``list_prediction_fields``, without missing predictions; there may be no row.
        """

    def measure_sureness(self, predictions: pa.Table) -> list[float]:
        """Return how sure the model is of each prediction, 0 to 1; by default nothing: predictions do not say it.

        Parameters
        ----------
        predictions : pyarrow.Table
            The columns of ``list_prediction_fields``, without missing predictions; there may be no row.
        """
        return []

    def score_predictions(self, predictions: pa.Table, labels: Sequence[Any]) -> list[float]:
        """Return a number for each prediction beside its label: by default 1 where they are equal and 0 elsewhere.

        Parameters
        ----------
        predictions : pyarrow.Table
            The columns of ``list_prediction_fields``, the prediction itself first.
        labels : sequence of n_rows labels
        """
        predicted = predictions.column(self.list_prediction_fields()[0][0]).to_pylist()
        return [float(own == true) for own, true in zip(predicted, labels, strict=True)]

    def compare_quality(self, scores: Sequence[float], test_scores: Sequence[float]) -> Quality:
        """Return how good predictions of new rows are beside the test split's: by default the share that is right.

        Parameters
        ----------
        scores, test_scores : sequences of float
            What ``score_predictions`` returned for new rows with a label and for the test split. Either may be
            empty: then its value is NaN.
        """
        return compare_shares(int(sum(scores)), len(scores), int(sum(test_scores)), len(test_scores))


def name_few(card: Mapping[str, Any], most: int = 20) -> str:
    """Return the labels of a model as a sentence: the first ones, and how many more there are.

    Examples
    --------
    >>> name_few({"labels": ["bad", "good", "so-so"]}, most=2)
    'it knows bad, good and 1 more.'
    """
    labels = card["labels"]
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return f"it knows {', '.join(labels[:most])}{more}."
