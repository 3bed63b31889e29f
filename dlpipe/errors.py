"""Expected failures, one class for each situation.

Every message is one line that says what was asked, what exists and what to do. Each class is also the builtin
exception that people would catch without knowing dlpipe.
"""

from dlpipe.terminal import make_visible


class DlpipeError(Exception):
    """An expected failure: the message is for the person who runs the flow, no traceback is needed."""

    def __str__(self) -> str:
        """Return the message, safe to be printed: names and values in it are from elsewhere."""
        return make_visible(super().__str__())


class SettingError(DlpipeError, ValueError):
    """A setting is misspelt, of the wrong type or out of range."""


class ColumnInDoubt(SettingError):
    """No column of a file, or more than one, may be the one that is looked for."""


class SourceNotFound(DlpipeError, FileNotFoundError):
    """A source file, folder or table to ingest does not exist."""


class BadSource(DlpipeError, ValueError):
    """A source cannot be read as what it claims to be, or lacks a column."""


class BadRows(DlpipeError, ValueError):
    """The rows of a source cannot make a data set: too many bad ones, one class only, unknown labels."""


class TableNotFound(DlpipeError, LookupError):
    """There is no Delta table at this path."""


class TableVersionNotFound(DlpipeError, LookupError):
    """The table exists, this version of it does not."""


class UnsupportedFeature(DlpipeError, NotImplementedError):
    """A table asks something of Delta's protocol that dlpipe does not have; nothing was read or written."""


class TableDamaged(DlpipeError, ValueError):
    """A data file of a table is no Parquet, or holds values that its columns cannot."""


class SchemaMismatch(DlpipeError, ValueError):
    """Rows do not have the columns or types of the table that they are written to."""


class NoRows(DlpipeError, LookupError):
    """A table has no row of what was asked for: of a split, with an answer of a model."""


class PartsMissing(DlpipeError, LookupError):
    """Not every part of a commit is staged; nothing was committed."""


class MarkMoved(DlpipeError, RuntimeError):
    """Another program moved the mark that this commit was to follow; nothing was committed."""


class StorageFull(DlpipeError, OSError):
    """The device has no space left; nothing was committed."""


class StorageUnavailable(DlpipeError, OSError):
    """The storage of a table does not answer, or refuses; nothing was committed."""


class DownloadFailed(DlpipeError, ConnectionError):
    """A data set could not be downloaded, verified or unpacked."""


class BackboneNotFound(DlpipeError, LookupError):
    """A backbone is neither a local folder nor available offline."""


class TrainingFailed(DlpipeError, RuntimeError):
    """Training or tuning could not give a model (diverged, every trial failed)."""


class NodeNotFound(DlpipeError, LookupError):
    """Nothing that lineage is of is called so, or was then."""


class NodeAmbiguous(DlpipeError, LookupError):
    """Several things that lineage is of are called so; the message lists them."""


class ModelNotFound(DlpipeError, LookupError):
    """The registry has no such model, version or alias."""


class ModelDamaged(DlpipeError, ValueError):
    """A registered model does not answer its example as it did when it was registered."""


class NotReproducible(DlpipeError, LookupError):
    """What a model was made of, or with, was not kept or is gone."""


class ChampionMoved(DlpipeError, RuntimeError):
    """Another version became champion while a candidate was judged against the one before; nothing was moved."""


class PromotionRefused(DlpipeError, ValueError):
    """A version cannot become champion, or cannot be deleted, as things stand; nothing was changed."""


class RunNotFound(DlpipeError, LookupError):
    """Metaflow has no such flow or run here."""


class MirrorIncomplete(DlpipeError):
    """Some Metaflow runs cannot be read, and so not be mirrored into MLflow."""


class TrackingUnavailable(DlpipeError, ConnectionError):
    """The MLflow address does not answer, or is of a kind that MLflow refuses."""


class StoreNotFound(TrackingUnavailable, LookupError):
    """There is no MLflow store where one is to be read: nothing has been tracked or registered there."""


class NothingToLearn(DlpipeError, LookupError):
    """A table has no label that the champion has not learnt from."""


class EvaluationError(DlpipeError, ValueError):
    """Outputs, labels and rows do not fit each other, so no score can be computed."""


class ExplanationError(DlpipeError, ArithmeticError):
    """Attributions do not add up to the model's output, so they explain nothing."""


class ClusterUnavailable(DlpipeError, ConnectionError):
    """The Ray cluster does not answer, refuses, or cannot do the work."""


class ClusterMismatch(DlpipeError, RuntimeError):
    """The Ray cluster, or a node of it, has another Python, Ray or dlpipe than this process."""


class ExtraMissing(DlpipeError, ImportError):
    """What is asked needs packages of an extra that is not installed."""


class EngineUnavailable(DlpipeError, LookupError):
    """A model cannot be run by this engine: unknown, not stored with it, damaged, or not for this machine."""


class StateUnusable(DlpipeError, OSError):
    """The orchestrator's state is locked, damaged, unreadable or from a newer dlpipe; nothing was changed."""


class DeploymentNotFound(DlpipeError, LookupError):
    """No flow is deployed under this name, or it has no such version."""


class DeploymentRefused(DlpipeError, ValueError):
    """A flow cannot be deployed as it is, or runs no more as it was deployed; nothing was deployed."""


class ScheduleError(DlpipeError, ValueError):
    """A cron line or a time zone is wrong."""


class EventRefused(DlpipeError, ValueError):
    """An event's name or payload is wrong."""


class QueueFull(DlpipeError, RuntimeError):
    """As many runs of a deployment are queued as may be; nothing was queued."""


class RunEnded(DlpipeError, RuntimeError):
    """The run has ended already, so it can neither be stopped nor begin an attempt."""


class RunActive(DlpipeError, RuntimeError):
    """The run is running, or the scheduler will resume it, so it cannot be deleted."""


class SchedulerRunning(DlpipeError, RuntimeError):
    """Another scheduler works on this state already."""


class NotPermitted(DlpipeError, PermissionError):
    """Somebody else deployed the flow, and its production token is not given."""


class ModelNotLoaded(DlpipeError, RuntimeError):
    """A server cannot load a version; the message says why, and is for its operator alone: it may name folders."""


class Overloaded(DlpipeError, RuntimeError):
    """A server has too much to do: nothing was computed. ``retry_after`` says in how many seconds to try again."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlinePassed(DlpipeError, TimeoutError):
    """A request had no answer in the time that it had."""


class AddressUnusable(DlpipeError, OSError):
    """A server cannot listen here: the port is taken, or the address is not of this machine."""


class ServerRefused(DlpipeError, ConnectionError):
    """A server of models refuses what it is asked, or does not answer."""


class ReceiverUnavailable(DlpipeError, ConnectionError):
    """A receiver of OpenLineage's events does not answer, or takes none: the rest can be told later."""


class EventNotTaken(DlpipeError, ValueError):
    """A receiver of OpenLineage's events does not take one; it may take others."""


class KeysUnusable(DlpipeError, PermissionError):
    """The file of a server's keys cannot be used: others may read it, or it is something else."""


class ProjectExists(DlpipeError, FileExistsError):
    """A project cannot be made here without changing files that are there; nothing was written."""


class ProjectUnusable(DlpipeError, ValueError):
    """A folder is no project that can be brought up to a newer template; nothing was changed."""
