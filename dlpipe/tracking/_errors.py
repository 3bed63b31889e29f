"""What MLflow and its database raise, in one clear line."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlpipe.buckets import explain_s3_error
from dlpipe.errors import DlpipeError, StorageFull, StorageUnavailable, TrackingUnavailable
from dlpipe.redaction import redact, show_address
from dlpipe.tracking._credentials import suggest_credentials

if TYPE_CHECKING:
    from dlpipe.tracking._store import TrackingStore


@contextmanager
def tracking_errors(store: TrackingStore) -> Iterator[None]:
    """Turn what MLflow raises inside into one clear line.

    Raises
    ------
    TrackingUnavailable, StorageFull
    StorageUnavailable
        When it is S3 that refuses the artifacts.
    """
    try:
        yield
    except DlpipeError:
        raise
    except Exception as error:
        # imported where something went wrong only: it takes more than a second
        from mlflow.exceptions import MlflowException

        if words := explain_s3_error(str(error)) if _is_of_s3(error) else "":
            raise StorageUnavailable(f"The artifacts of MLflow at {show_address(store.uri)}: {words}.") from error
        if not isinstance(error, MlflowException | OSError | sqlite3.Error):
            raise
        raise to_dlpipe_error(error, asked=f"MLflow at {show_address(store.uri)}") from error


def _is_of_s3(error: BaseException | None) -> bool:
    """Whether S3's client raised ``error``, or what it came from: MLflow wraps some of them."""
    if error is None:
        return False
    package = type(error).__module__.partition(".")[0]
    return package in ("boto3", "botocore", "s3transfer") or _is_of_s3(error.__cause__ or error.__context__)


@contextmanager
def explain_database_errors(asked: str) -> Iterator[None]:
    try:
        yield
    except DlpipeError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise to_dlpipe_error(error, asked=asked) from error
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, SQLAlchemyError | MlflowException):
            raise
        raise to_dlpipe_error(error, asked=asked) from error


def to_dlpipe_error(error: Exception, *, asked: str) -> DlpipeError:
    """Return the error to show for one of MLflow's, of its database or of the file system.

    Examples
    --------
    >>> to_dlpipe_error(OSError(28, "No space left on device"), asked="MLflow at sqlite:///mlflow.db")
    StorageFull('MLflow at sqlite:///mlflow.db: no space left on the device. Free some and run again.')
    """
    problem = " ".join(str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error).split())
    if getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in problem:
        return StorageFull(f"{asked}: no space left on the device. Free some and run again.")
    problem = redact(problem)
    short = problem if len(problem) <= 300 else f"{problem[:300]}..."
    refused = getattr(error, "error_code", "") in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
    hint = suggest_credentials() if refused else "Check MLFLOW_TRACKING_URI."
    return TrackingUnavailable(f"{asked} cannot be used: {short.rstrip('.')}. {hint}")
