"""Hiding what looks like a credential in text before it leaves the process: printed, logged or sent to MLflow.

One place, below all other rooms: there were three lists of what is secret before, and they differed.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import numbers
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote, unquote_plus

from dlpipe.errors import SettingError

HIDDEN = "[redacted]"
VARIABLE = "DLPIPE_BRIDGE_SECRETS"
LONGEST_KNOWN = 200
"""Characters of a name of which it is remembered whether it looks secret."""

_SECRET_NAME = re.compile(
    r"passw|passphrase|secret|credential|authorization"
    r"|(?:^|_)(?:pwd|pw|pin|apitoken|bearer)(?:$|_)"
    r"|(?:api|access|private|account|signing|encryption|auth)_?(?:keys?|tokens?)"
    r"|(?:refresh|session|id)_tokens?"
)
# words that also stand for other things: `token_accuracy` is a score, `key_error` a count
_DOUBTFUL_NAME = re.compile(r"(?:^|_)(?:sig|signature|keys?|token)(?P<end>$|_)")
# words of language models: no credentials, however often they say "token"
_PLAIN_NAME = re.compile(
    r"^(?:\w+_)?(?:pad|unk|sep|cls|mask|bos|eos|special|start|end|next|first|last|decoder_start)_token(?:_ids?)?$"
    r"|(?:^|_)token_(?:ids?|types?|type_ids|counts?|lengths?|embeddings?|classification|limit)$"
    r"|(?:^|_)(?:sort|primary|foreign|public|group|partition|cache)_keys?$"
)
_KEYS = re.compile(
    r"\b(?:"
    r"sk-[\w-]{3,}"  # OpenAI, Anthropic, Stripe and others
    r"|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|hf_\w{16,}"
    r"|xox[abposr]-[\w-]{8,}"
    r"|A(?:KI|SI)A[A-Z0-9]{16}"
    r"|dlp_[0-9a-f]{12}_[\w-]{16,}"  # of dlpipe serve
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web tokens; from a word's start, or it takes for ever
    r")"
)
_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# a host and its port, whatever stands behind: no user, though there may be an @ further on
_PORT = r"\d{1,5}(?=[/?#\s\"'<>]|$)"
# up to the last @ of the address: a password may have one, and a slash
_IN_URL = re.compile(
    r"(?P<before>\b[A-Za-z][A-Za-z0-9+.-]{0,30}://(?!\[[\d:.a-fA-F]+\])[^\s/?\#:@\"'<>]{0,200}:)"
    rf"(?!{_PORT})(?:[^\s?\#\"'<>]{{1,500}}(?=@)|[^\s\"'<>]{{1,500}}(?=@))"
)
_IN_QUOTED_URL = re.compile(r"(?P<before>%3A%2F%2F[^\s%&\"'<>]{0,200}%3A)[^\s&\"'<>]{1,500}(?=%40)", re.IGNORECASE)
# a token stands where a user does, alone or before a password of no use
_USER_IN_URL = re.compile(r"(?P<before>\bhttps?://)[^\s/:@\"'<>]{1,500}(?=(?::|:x-oauth-basic)?@)")
# an address without its scheme, and what `curl -u` takes
_NO_SCHEME = re.compile(
    r"(?<![\w:/@.+-])(?P<before>[\w.+-]{1,64}:)[^\s/:@\"'<>][^\s:@\"'<>]{0,200}(?=@[\w.-]{1,200}:\d{2,5}\b)"
)
_USER_OPTION = re.compile(
    r"(?P<before>(?<![\w-])(?:-u|--user|--proxy-user)(?:[ \t=]+|(?<=-u))[\"']?[^\s:\"']{0,200}:)[^\s\"']{1,500}"
)
# the path of a webhook is its secret
_WEBHOOK = re.compile(
    r"(?P<before>\bhttps?://(?:hooks?\.[^\s/\"'<>]+|[^\s/\"'<>]+(?=/(?:[^\s\"'<>?\#]{0,200}webhook|bot\d+:)))/)[^\s\"'<>]+",
    re.IGNORECASE,
)
_WEB = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)
_BEARER = re.compile(r"(?i)(?P<before>\b(?:bearer|basic)\s+)(?=[\w.~+/=-]*[\d=])[\w.~+/=-]{6,}")
_QUOTE = r"""(?:\\?["']|&quot;|&\#3[49];)"""
_VALUE = re.compile(
    r"""
        \\"(?:(?!\\").)*\\" | &quot;(?:(?!&quot;).)*&quot; | &\#3[49];(?:(?!&\#3[49];).)*&\#3[49];
        | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
        | \[[^\]\n]*\]? | \{[^}\n]*\}?
        | (?:(?i:bearer|basic|digest|token)[ \t]+)?[^\s"'<&]+(?:&(?!quot;|\#)[^\s"'<&]*)*
    """,
    re.VERBOSE,
)
# as it stands behind a name in a text; 12e5 may be a key
_FRACTION, _WHOLE = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?%?"), re.compile(r"[-+]?\d+%?")
# what people write for many things, and nobody for a key alone
_COMMON = re.compile(r"[A-Za-z]?[a-z]*(?:[ _./-][a-z]+)*|\d{1,8}")
# a name and what stands between it and its value: `name=`, `"name": `, and `--name `
_NAMED = re.compile(rf"(?<![\w%-])(?P<name>[\w%-]{{2,60}}){_QUOTE}?[ \t]*[=:][ \t]*(?!//)", re.VERBOSE)
_OPTION = re.compile(r"(?<![\w-])--(?P<name>[\w-]{2,60})[ \t]+(?!-)")


_CARD_DATA = re.compile(r'(?P<before>window\.__MF_DATA__\["[^"]*"\] = ")(?P<data>[A-Za-z0-9+/=]+)(?=")')
_known_secrets: ContextVar[tuple[str, ...]] = ContextVar("known", default=())
_DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://\S+")
_BARE_USER = re.compile(r"(?P<before>(?!mailto:)[^\s/:@\\]{1,200}:)(?!/)\S{1,500}(?=@(?!sha\d+:)[^\s@]+$)")
_HOST_ALONE = re.compile(r"(?:\[[\da-fA-F:.]*\]|[^\s/?#:@\[]*)(?::\d{1,5})?(?=[/?#]|$)")
_WITHIN = ("auth", "odbc_connect", "code", "pat", "sas")
"""Names in the query of an address that carry credentials, besides those that ``looks_secret`` knows."""
DEPTH = 100
"""How deep JSON in a card may be nested; deeper, and it is hidden whole instead of read."""
SHORTEST, MOST = 6, 10_000
"""Least length of a value that is hidden everywhere because it stood under a secret name, and how many may be."""
LONG = 16
"""A text of so many characters is hidden everywhere, even if it is a word, where its name is a doubtful one."""


def set_secrets(values: Iterable[str]) -> None:
    """Make ``redact`` hide these values wherever they stand, until the next call."""
    # the longest first: a value may be part of another, whose rest would stay
    found = sorted({value for value in values if len(value) >= SHORTEST}, key=lambda value: (-len(value), value))
    _known_secrets.set(tuple(found[:MOST]))


def find_secrets(value: Any, name: str) -> Iterator[str]:
    """Yield the texts that stand under secret names in a value, but for words under names such as ``key``.

    What is called ``key`` is often the name of a column, a table, a class: hidden where it stands, it is no reason
    to hide the same word everywhere.

    Examples
    --------
    >>> list(find_secrets({"user": "ana", "password": "hunter22"}, "login"))
    ['hunter22']
    >>> list(find_secrets("reviews", "key")), list(find_secrets("reviews", "password"))
    ([], ['reviews'])
    """
    waiting, seen = [(value, name)], set()
    while waiting:
        value, name = waiting.pop()
        if isinstance(value, str):
            if looks_secret(name) and not (_is_doubtful(name) and _is_common(value)):
                yield value
            continue
        if (id(value), looks_secret(name)) in seen:  # lists may hold each other, and themselves
            continue
        seen.add((id(value), looks_secret(name)))
        if isinstance(value, Mapping):
            waiting += [(inner, name if looks_secret(name) else str(key)) for key, inner in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(inner, name) for inner in value]


def looks_secret(name: str) -> bool:
    """Return whether a value of this name is a credential.

    Examples
    --------
    >>> names = ("api_token", "dbPassword", "key", "monkey", "max_tokens", "pad_token")
    >>> [name for name in names if looks_secret(name)]
    ['api_token', 'dbPassword', 'key']
    """
    return _has_secret_word(name) if len(name) <= LONGEST_KNOWN else _has_secret_word.__wrapped__(name)


@functools.lru_cache(maxsize=4096)
def _has_secret_word(name: str) -> bool:
    """Return what ``looks_secret`` says; records have the same names again and again."""
    words = _split_name(name)
    return bool(_SECRET_NAME.search(words) or _DOUBTFUL_NAME.search(words)) and not _PLAIN_NAME.search(words)


def is_credential(name: str, value: object) -> bool:
    """Return whether ``value`` is a credential by its name; numbers mostly are none.

    A number is one under names such as ``password``, and a whole one under ``token`` and ``key``.

    Examples
    --------
    >>> is_credential("token_accuracy", 0.9), is_credential("token", 0.9), is_credential("token", 123456)
    (False, False, True)
    >>> is_credential("password", 0.9), is_credential("token_accuracy", "abc"), is_credential("token", None)
    (True, True, False)
    """
    if value is None or isinstance(value, bool) or not looks_secret(name):
        return False
    if not isinstance(value, numbers.Real) or not _is_doubtful(name):
        return True
    ends = any(not found["end"] for found in _DOUBTFUL_NAME.finditer(_split_name(name)))
    return ends and isinstance(value, numbers.Integral)


def _split_name(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(".", "_").lower()


def _is_doubtful(name: str) -> bool:
    """Return whether only a word that also stands for other things makes a name look secret."""
    return not _SECRET_NAME.search(_split_name(name))


def _is_common(value: str) -> bool:
    return len(value) < LONG and _COMMON.fullmatch(value) is not None


def redact(text: str) -> str:
    """Return ``text`` with credentials replaced by ``[redacted]``.

    What counts: passwords in URLs, values after names such as ``token=``, ``Authorization`` headers, well-known
    forms of keys, private keys, and whatever the regular expression in ``DLPIPE_BRIDGE_SECRETS`` finds.

    Examples
    --------
    >>> redact("postgresql://ana:hunter2@db/x with api_token=abc and sk-123456")
    'postgresql://ana:[redacted]@db/x with api_token=[redacted] and [redacted]'
    """
    # lone surrogates and NUL: what no store takes
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    for known in _known_secrets.get():
        text = text.replace(known, HIDDEN)
    text = _BLOCK.sub(HIDDEN, text)
    text = _IN_URL.sub(rf"\g<before>{HIDDEN}", text)
    for pattern in (_IN_QUOTED_URL, _USER_IN_URL, _NO_SCHEME, _USER_OPTION, _WEBHOOK):
        text = pattern.sub(rf"\g<before>{HIDDEN}", text)
    text = _hide_named(_NAMED, text)
    text = _hide_named(_OPTION, text)
    text = _BEARER.sub(rf"\g<before>{HIDDEN}", text)
    text = _KEYS.sub(HIDDEN, text)
    own = compile_own_pattern(os.environ.get(VARIABLE, ""))
    return own.sub(HIDDEN, text) if own else text


@functools.lru_cache(maxsize=8)
def compile_own_pattern(expression: str) -> re.Pattern[str] | None:
    """Return the regular expression of ``DLPIPE_BRIDGE_SECRETS``; ``None`` when there is none.

    Raises
    ------
    SettingError
        When it is no regular expression.
    """
    try:
        return re.compile(expression) if expression else None
    except re.error as error:
        raise SettingError(f"{VARIABLE}={expression!r} is no regular expression: {error}.") from None


def show_address(address: str) -> str:
    """Return ``address`` as it may be printed: no password, no token, nothing secret in its query.

    The user of a database stays, for it tells whose rights are missing; elsewhere a user may be a token.

    Examples
    --------
    >>> show_address("postgresql://ana:hunter2@db.example/mlflow?sslmode=require&sslpassword=x")
    'postgresql://ana@db.example/mlflow?sslmode=require&sslpassword=[redacted]'
    >>> show_address("https://ghp-token@mlflow.example:5000"), show_address("sqlite:////srv/mlflow.db")
    ('https://[redacted]@mlflow.example:5000', 'sqlite:////srv/mlflow.db')
    """
    scheme, found, rest = address.partition("://")
    if not found or "/" in scheme:
        return redact(_BARE_USER.sub(rf"\g<before>{HIDDEN}", address))
    end = _find_end_of_user(rest)
    user, rest = rest[:end], rest[end:]
    if user:
        name = user.partition(":")[0] if scheme.partition("+")[0].lower() in _DATABASES else HIDDEN
        rest = f"{name}{rest}"
    place, *parts = re.split(r"([?#&])", rest)
    return redact(f"{scheme}://{place}") + "".join(_show_part(part) for part in parts)


def has_unescaped_password(address: str) -> bool:
    """Return whether a password in an address has characters, such as a slash, that hide where the host begins.

    Examples
    --------
    >>> has_unescaped_password("https://ana:one/two@h"), has_unescaped_password("https://ana:one%2Ftwo@h")
    (True, False)
    """
    place = address.partition("://")[2]
    host = re.split(r"[/?#]", place, maxsplit=1)[0]
    return "@" not in host and _find_end_of_user(place) > 0


def _find_end_of_user(rest: str) -> int:
    """Return where the user of an address ends (at its ``@``), 0 when it has none.

    A password may have any character, also those that ought to be escaped, so it ends at the last ``@``.
    """
    if _HOST_ALONE.match(rest):
        return 0
    before_query = re.split(r"[?#]", rest, maxsplit=1)[0]
    return max(before_query.rfind("@") if "@" in before_query else rest.rfind("@"), 0)


def _show_part(part: str) -> str:
    """Return a part of a query, between two ``&`` or ``;``, with a secret value hidden to its end."""
    for found in re.finditer(r"(?:^|;)(?P<name>[^=;]*)=(?P<value>[^;]*)", part):
        name, value = unquote_plus(found["name"]), unquote_plus(found["value"])
        hidden = looks_secret(name) or name.lower() in _WITHIN or redact(value) != value
        if value and hidden:
            return part[: found.start("value")] + HIDDEN
    return redact(part)


def show_target(target: str) -> str:
    """Return the target of alerts as it may be printed: of a webhook only the host, for its path is the secret.

    The same goes for a webhook within a command, and in the output of a command.

    Examples
    --------
    >>> show_target("https://hooks.example/services/T0/B0/XyZ"), show_target("notify --token abc --to ops")
    ('https://hooks.example/[redacted]', 'notify --token [redacted] --to ops')
    >>> show_target("curl -d @- 'https://hooks.example/services/T0/B0/XyZ'")
    "curl -d @- 'https://hooks.example/[redacted]'"
    """
    return redact(_WEB.sub(_keep_host, target))


def _keep_host(found: re.Match[str]) -> str:
    scheme, _, rest = found[0].partition("://")
    host = re.split(r"[/?#]", rest[_find_end_of_user(rest) :].removeprefix("@"), maxsplit=1)[0]
    return f"{scheme}://{host}/{HIDDEN}"


def redact_value(name: str, value: str) -> str:
    """Return ``value``, hidden whole if ``name`` says that it is secret."""
    return HIDDEN if looks_secret(name) and value not in ("", "None") else redact(value)


def show_value(name: str, value: object) -> str:
    """Return a value as it may be printed beside its name: a parameter, a variable, a setting.

    Examples
    --------
    >>> show_value("api_key", "abc"), show_value("MLFLOW_TRACKING_URI", "https://ghp-token@mlflow.example")
    ('[redacted]', 'https://[redacted]@mlflow.example')
    >>> show_value("rows", 10), show_value("password", None)
    ('10', 'None')
    """
    text = str(value)
    if is_credential(name, value) and text not in ("", "None"):
        return HIDDEN
    return show_address(text) if _ADDRESS.fullmatch(text) or _BARE_USER.match(text) else redact(text)


def redact_json(value: Any, name: str = "") -> Any:
    """Return JSON's own types with credentials hidden: all that stands under a secret name, and in each text.

    Examples
    --------
    >>> redact_json({"max_tokens": 3, "api_keys": ["a", "b"], "say": "token=abc"})
    {'max_tokens': 3, 'api_keys': '[redacted]', 'say': 'token=[redacted]'}
    """
    return _redact_inside(value, name, {})


def _redact_inside(value: Any, name: str, names: dict[str, str]) -> Any:
    """Return what ``redact_json`` does; ``names`` are the keys so far and what they have become."""
    if is_credential(name, value):
        return HIDDEN
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_redact_inside(inner, "", names) for inner in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for key, inner in value.items():
        key = str(key)
        if key not in names:
            names[key] = redact(key)
        shown = names[key]
        while shown in made:  # two keys with a credential in them, say
            shown += ":2"
        made[shown] = _redact_inside(inner, key, names)
    return made


def redact_card(page: str) -> str:
    """Return the page of a card with credentials hidden, also in the data that Metaflow's own cards carry."""
    if not _CARD_DATA.search(page):
        return redact(page)
    return _CARD_DATA.sub(_hide_in_data, page)


def measure_nesting(text: str) -> int:
    """Return how deep the lists and objects in JSON are nested, without parsing it: that could exhaust the stack.

    Examples
    --------
    >>> measure_nesting('{"a": ["[[[", {}]}')
    3
    """
    deepest = depth = 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', text):
        depth += (found[0] in ("[", "{")) - (found[0] in ("]", "}"))
        deepest = max(deepest, depth)
    return deepest


def _hide_in_data(found: re.Match[str]) -> str:
    try:
        text = base64.b64decode(found["data"]).decode()
        data = redact_json(json.loads(text)) if measure_nesting(text) <= DEPTH else None
    except (binascii.Error, ValueError):
        return found["before"]  # of a kind that cannot be looked into
    return found["before"] + base64.b64encode(json.dumps(data).encode()).decode()


def _hide_named(names: re.Pattern[str], text: str) -> str:
    """Return the text with the values after secret names hidden; quotes stay, so that JSON stays JSON.

    It goes from name to name: what stands after one that is no secret may hold others, in any number.
    """
    parts, at, written = [], 0, 0
    while found := names.search(text, at):
        at = found.end()
        name = unquote(found["name"])
        if not looks_secret(name) or not (value := _VALUE.match(text, at)):
            continue
        if not is_credential(name, _read_number(value[0])):
            continue
        parts += [text[written:at], _hide(value[0])]
        at = written = value.end()
    return "".join([*parts, text[written:]])


def _read_number(value: str) -> float | int | str:
    """Return the number that stands behind a name in a text; the text itself where none does."""
    plain = value.rstrip(",;)}]")
    if _FRACTION.fullmatch(plain):
        return float(plain.rstrip("%"))
    return int(plain.rstrip("%")) if _WHOLE.fullmatch(plain) and len(plain) < LONG else value


def _hide(value: str) -> str:
    if value in ("None", "null", "true", "false", '""', "''"):
        return value
    for quote in ('\\"', "&quot;", "&#34;", "&#39;", '"', "'"):
        if value.startswith(quote):
            return f"{quote}{HIDDEN}{quote}"
    return HIDDEN
