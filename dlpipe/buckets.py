"""Buckets of S3: a check within seconds that a bucket can be used, objects, and S3's errors in plain words."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from dlpipe.errors import StorageUnavailable
from dlpipe.redaction import show_address

SECONDS = 4  # boto3 waits 60 by default, and tries again: a wrong address would look like a hung flow
# S3's error codes, and what to do
ADVICE_BY_CODE = {
    "InvalidAccessKeyId": "it does not know the key in AWS_ACCESS_KEY_ID; correct it",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID; correct it",
    "InvalidToken": "AWS_SESSION_TOKEN is not valid; get a new one",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired; get a new one",
    "AccessDenied": "these keys may not use it; use others, or give them the right to list, read and write",
    "NoSuchBucket": "there is no such bucket; make it, or name another",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION and AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION and AWS_DEFAULT_REGION",
}
# what stands in errors that have no code: those of botocore, and those of delta-rs, which writes its own
ADVICE_BY_SIGN = {
    "Unable to locate credentials": "there are no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "169.254.169.254": "there are no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "scheme is not allowed": "the address begins with http:; set AWS_ALLOW_HTTP=true if that is meant",
    "Could not connect": "nothing answers there; start it, or correct the address (AWS_ENDPOINT_URL)",
    "refused": "nothing answers there; start it, or correct the address (AWS_ENDPOINT_URL)",
    "timed out": "no answer within seconds; correct the address (AWS_ENDPOINT_URL), or try again",
    "timeout": "no answer within seconds; correct the address (AWS_ENDPOINT_URL), or try again",
    "dns error": "its host is not known; correct the address (AWS_ENDPOINT_URL)",
}


def explain_s3_error(message: str) -> str:
    """Return what an error of S3 means and what to do; empty for one that is not known.

    Examples
    --------
    >>> explain_s3_error("status code 404: <Error><Code>NoSuchBucket</Code>")
    'there is no such bucket; make it, or name another'
    >>> explain_s3_error("An error occurred (AccessDenied) when calling the PutObject operation: Access Denied")
    'these keys may not use it; use others, or give them the right to list, read and write'
    """
    codes = re.findall(r"<Code>(\w+)</Code>|\((\w+)\) when calling", message)
    found = [ADVICE_BY_CODE[code] for pair in codes for code in pair if code in ADVICE_BY_CODE]
    found += [advice for sign, advice in ADVICE_BY_SIGN.items() if sign in message]
    return found[0] if found else ""


def is_s3(address: str) -> bool:
    """Return whether ``address`` is in S3."""
    return urlsplit(address).scheme in ("s3", "s3a")


@functools.cache
def check_bucket(address: str, *, what: str, endpoint: str | None = None) -> None:
    """Raise ``StorageUnavailable`` unless the bucket of ``address`` can be listed; asks once a process.

    Parameters
    ----------
    address : str
        Such as ``s3://bucket/folder``.
    what : str
        What is stored there, and the variable that names it, for the error.
    endpoint : str, optional
        By default where boto3 looks: ``AWS_ENDPOINT_URL``, or Amazon.

    Raises
    ------
    StorageUnavailable
        With what S3 answered and what to do about it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlsplit(address)
    try:
        _make_client(endpoint).list_objects_v2(Bucket=place.netloc, Prefix=place.path.strip("/"), MaxKeys=1)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise _make_refusal(address, what, str(error), endpoint) from None


def delete_objects(address: str, *, what: str, endpoint: str | None = None) -> None:
    """Delete all objects under ``address``; where there is none, nothing.

    Parameters
    ----------
    address : str
        Such as ``s3://bucket/folder``; what is beside the folder, such as ``s3://bucket/folder-2``, stays.
    what : str
        What is stored there, and the variable that names it, for the error.
    endpoint : str, optional
        As for ``check_bucket``.

    Raises
    ------
    StorageUnavailable
        With what S3 answered; called again, it deletes the rest.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlsplit(address)
    try:
        client = _make_client(endpoint)
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=place.netloc, Prefix=f"{place.path.strip('/')}/"
        )
        for page in pages:
            if keys := [{"Key": entry["Key"]} for entry in page.get("Contents", ())]:
                done = client.delete_objects(Bucket=place.netloc, Delete={"Objects": keys, "Quiet": True})
                if refused := done.get("Errors"):
                    raise _make_refusal(address, what, f"({refused[0]['Code']}) when calling", endpoint)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise _make_refusal(address, what, str(error), endpoint) from None


@dataclass(frozen=True)
class BucketFolder:
    """The objects under an address.

    Attributes
    ----------
    address : str
        Such as ``s3://bucket/folder``.
    what : str
        What is stored there, for errors.
    endpoint : str or None
        As for ``check_bucket``.
    """

    address: str
    what: str
    endpoint: str | None = None

    @functools.cached_property
    def client(self) -> Any:
        """What calls S3; for several threads."""
        return _make_client(self.endpoint)

    def has_folder(self, name: str) -> bool:
        """Return whether there are objects below a folder of it."""
        return (
            next(BucketFolder(f"{self.address}/{name}", self.what, self.endpoint).list_objects(), None) is not None
        )

    def list_objects(self) -> Iterator[StoredObject]:
        """Yield each object, by its key; the folders that consoles make are none."""
        place = urlsplit(self.address)
        prefix = f"{place.path.strip('/')}/".lstrip("/")
        with self.explain_errors():
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=place.netloc, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):
                        path = PurePosixPath(entry["Key"].removeprefix(prefix))
                        yield StoredObject(self, place.netloc, entry["Key"], path, entry["Size"])

    @contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Raise ``StorageUnavailable`` for errors of S3."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, ValueError) as error:
            raise _make_refusal(self.address, self.what, str(error), self.endpoint) from None


@dataclass(frozen=True)
class StoredObject:
    """An object of a bucket.

    Attributes
    ----------
    path : PurePosixPath
        Below the address of its folder.
    size : int
        Bytes, when it was listed.
    """

    folder: BucketFolder = field(repr=False)
    bucket: str
    key: str
    path: PurePosixPath
    size: int

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The end of its key."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """As that of a file."""
        return self.path.suffix

    def read(self) -> bytes | None:
        """Return its content; ``None`` where it is gone meanwhile."""
        client = self.folder.client
        with self.folder.explain_errors():
            try:
                return bytes(client.get_object(Bucket=self.bucket, Key=self.key)["Body"].read())
            except client.exceptions.NoSuchKey:
                return None

    def replace(self, content: bytes) -> None:
        """Give it another content, in one step; what is noted beside it stays."""
        with self.folder.explain_errors():
            before = self.folder.client.head_object(Bucket=self.bucket, Key=self.key)
            self.folder.client.put_object(
                Bucket=self.bucket,
                Key=self.key,
                Body=content,
                Metadata=before["Metadata"],
                **{name: before[name] for name in ("ContentType", "ContentEncoding") if name in before},
            )

    def delete(self) -> None:
        """Delete it."""
        with self.folder.explain_errors():
            self.folder.client.delete_object(Bucket=self.bucket, Key=self.key)


def _make_refusal(address: str, what: str, told: str, endpoint: str | None) -> StorageUnavailable:
    message = " ".join(told.split()).rstrip(".")
    where = f" at {show_address(endpoint)}" if endpoint else ""
    return StorageUnavailable(
        f"{show_address(address)}{where} cannot be used for {what}: {explain_s3_error(message) or message}."
    )


def _make_client(endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config

    quick = Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 2})
    # a session of its own: boto3's default one keeps the first keys it saw, and is not for several threads
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=quick)
