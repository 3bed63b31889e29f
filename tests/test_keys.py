"""Keys of a server: who may ask what, how often, how much and until when; and the sums over what was asked."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from serving_kills import make_entry

from dlpipe.cli import main
from dlpipe.errors import KeysUnusable, SettingError
from dlpipe.redaction import redact
from dlpipe.serving import keys
from dlpipe.serving.guards import READ
from dlpipe.serving.key_file import RIGHTS, begin_of_day, create_key, read_keys, revoke_key
from dlpipe.serving.keys import KeyRing
from dlpipe.serving.log_rows import REFUSED
from dlpipe.serving.logged import read_logged
from dlpipe.serving.refusals import Refused
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.settings import LogSettings
from dlpipe.serving.usage import count_used_rows, sum_usage

BERLIN = ZoneInfo("Europe/Berlin")


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "state" / "keys.json"


@pytest.fixture
def log(tmp_path, monkeypatch) -> RequestLog:
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    made = RequestLog(LogSettings(flush_seconds=3600), say=lambda line: None)
    made.start()
    yield made
    made.close()


def refusal(ring: KeyRing, shown: str | None, *, model: str = "reviews", right: str = "predict") -> Refused:
    with pytest.raises(Refused) as caught:
        ring.check(None if shown is None else f"Bearer {shown}", model=model, right=right)
    return caught.value


def headers(refused: Refused) -> dict[bytes, bytes]:
    return dict(refused.headers)


def test_a_key_may_do_what_it_was_made_for_and_nothing_else(file):
    key, shown = create_key(file, "shop", models=["reviews"], rights=["predict"])
    ring = KeyRing(file)
    assert ring.check(f"Bearer {shown}", model="reviews", right="predict").key == key.id
    assert ring.check(f"bearer {shown}", model="", right="predict").key == key.id
    assert refusal(ring, shown, right="explain").status == 403
    assert refusal(ring, shown, right="admin").status == 403
    assert refusal(ring, shown, model="tickets").status == 403
    missing = refusal(ring, None)
    assert (missing.status, headers(missing)[b"www-authenticate"]) == (401, b"Bearer")
    wrong = [shown[:-1], f"{shown}x", "dlp_0_0", "x", "", f"dlp_{key.id}_", shown.upper(), "\ud800", "x" * 9999]
    assert {(found.status, found.message) for found in (refusal(ring, one) for one in wrong)} == {
        (401, "The key is not known here."),
    }
    with pytest.raises(Refused, match="no password here"):
        ring.check(f"Basic {shown}", model="reviews", right="predict")


def test_what_a_model_is_may_be_read_by_who_may_ask_it_or_sees_the_page(file):
    shown = {right: create_key(file, right, models=["reviews"], rights=[right])[1] for right in RIGHTS}
    ring = KeyRing(file)
    for right in ("predict", "admin"):
        assert ring.check(f"Bearer {shown[right]}", model="reviews", right=READ)
        assert refusal(ring, shown[right], model="tickets", right=READ).status == 403
    for right in ("explain", "feedback"):
        refused = refusal(ring, shown[right], right=READ)
        assert (refused.status, "no right to predict or admin" in refused.message) == (403, True)


def test_the_secret_is_in_no_file_and_the_file_is_for_its_owner_alone(file):
    key, shown = create_key(file, "shop")
    secret = shown.split("_", 2)[2]
    assert secret not in file.read_text()
    assert secret not in repr(key)
    assert secret not in redact(f"a client sent {shown} somewhere")
    assert [oct(path.stat().st_mode & 0o777) for path in sorted(file.parent.iterdir())] == ["0o600", "0o600"]
    assert file.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o660])
def test_a_file_that_others_may_read_or_write_is_refused_and_it_says_what_to_do(file, mode):
    create_key(file, "shop")
    file.chmod(mode)
    with pytest.raises(KeysUnusable, match=f"rights are {mode:04o}. Run: chmod 600"):
        KeyRing(file)
    with pytest.raises(KeysUnusable):
        revoke_key(file, "shop")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": 1, "keys": [{"id": "x"}]}', "\0\0", '{"format": 9}']
)
def test_a_file_of_something_else_is_refused(file, content):
    file.parent.mkdir()
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(KeysUnusable):
        read_keys(file)


def test_a_revoked_key_is_refused_within_two_seconds_and_a_new_one_is_taken(file):
    _, shown = create_key(file, "shop")
    ring = KeyRing(file)
    ring.check(f"Bearer {shown}", model="reviews", right="predict")
    revoke_key(file, "shop")
    other = create_key(file, "shop")[1]
    time.sleep(1.5)
    refused = refusal(ring, shown)
    assert (refused.status, "revoked" in refused.message) == (401, True)
    ring.check(f"Bearer {other}", model="reviews", right="predict")
    assert ring.count_valid() == 1


def test_a_file_that_goes_bad_leaves_the_keys_as_they_were_and_is_said_once(file):
    _, shown = create_key(file, "shop")
    said: list[str] = []
    ring = KeyRing(file, say=said.append)
    file.chmod(0o644)
    for _ in range(3):
        ring._looked_at = 0.0
        ring.check(f"Bearer {shown}", model="reviews", right="predict")
    assert len(said) == 1
    assert "chmod 600" in said[0]
    file.unlink()
    ring._looked_at = 0.0
    assert refusal(ring, shown).status == 401


def test_a_revoked_key_is_refused_although_its_file_could_not_be_read_once(file, monkeypatch):
    _, shown = create_key(file, "shop")
    said: list[str] = []
    ring = KeyRing(file, say=said.append)
    revoke_key(file, "shop")
    with monkeypatch.context() as broken:
        broken.setattr(keys, "read_keys", fail_to_read)
        ring._looked_at = 0.0
        ring.check(f"Bearer {shown}", model="reviews", right="predict")
    ring._looked_at = 0.0
    assert refusal(ring, shown).status == 401
    assert said == [said[0], f"Keys are read from {file} again."]


def fail_to_read(file: Path) -> None:
    raise KeysUnusable(f"The keys in {file} cannot be read: Too many open files.")


def test_a_key_ends_with_its_last_day(file):
    clock = Clock(datetime(2026, 3, 28, 12, tzinfo=BERLIN).timestamp())
    _, shown = create_key(file, "shop", zone="Europe/Berlin", ends="2026-03-29", now=clock.now)
    ring = KeyRing(file, clock=clock)
    clock.now = datetime(2026, 3, 29, 23, 59, 59, tzinfo=BERLIN).timestamp()
    ring.check(f"Bearer {shown}", model="reviews", right="predict")
    clock.now += 1
    assert "has ended" in refusal(ring, shown).message


def test_who_asks_too_often_is_told_when_to_come_back(file):
    clock = Clock(1_000_000.0)
    key, shown = create_key(file, "shop", rate="5/s")
    ring = KeyRing(file, clock=clock)
    for _ in range(5):
        ring.check(f"Bearer {shown}", model="reviews", right="predict")
    refused = refusal(ring, shown)
    assert (refused.status, refused.key, headers(refused)[b"retry-after"]) == (429, key.id, b"1")
    clock.now += 0.21
    ring.check(f"Bearer {shown}", model="reviews", right="predict")
    assert refusal(ring, shown).status == 429
    clock.now += 3600
    taken = 0
    while taken < 100:
        try:
            ring.check(f"Bearer {shown}", model="reviews", right="predict")
        except Refused:
            break
        taken += 1
    assert taken == 5  # what was not used is not saved up


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_quota_lasts_a_day_of_its_time_zone_also_where_the_clock_is_changed(file, day, hours):
    began = datetime.fromisoformat(day).replace(tzinfo=BERLIN).timestamp()
    clock = Clock(began)
    _, shown = create_key(file, "shop", quota=10, zone="Europe/Berlin")
    ring = KeyRing(file, clock=clock)
    grant = ring.check(f"Bearer {shown}", model="reviews", right="predict")
    ring.charge(grant, 7)
    with pytest.raises(Refused) as caught:
        ring.charge(grant, 4)
    assert (caught.value.status, headers(caught.value)[b"retry-after"]) == (429, b"%d" % (hours * 3600))
    ring.charge(grant, 3)  # nothing was counted for those that were refused
    clock.now = began + hours * 3600 - 1
    with pytest.raises(Refused):
        ring.charge(grant, 1)
    clock.now += 1
    ring.charge(grant, 10)


def test_a_day_without_a_midnight_begins_when_the_clock_says_so():
    havana = "America/Havana"  # at midnight of 2026-03-08 clocks go to 1:00
    began = begin_of_day(datetime(2026, 3, 8).date(), havana)
    assert datetime.fromtimestamp(began, ZoneInfo(havana)).hour == 1
    assert begin_of_day(datetime(2026, 3, 9).date(), havana) - began == 23 * 3600


def test_a_quota_goes_on_after_a_restart(file, log):
    key, shown = create_key(file, "shop", quota=10)
    entry = make_entry("reviews", 3)
    object.__setattr__(entry, "key", key.id)
    refused = make_entry("reviews", 9)
    object.__setattr__(refused, "key", key.id)
    object.__setattr__(refused, "status", 429)
    log.write([entry, refused])
    ring = KeyRing(file, used=count_used_rows)
    grant = ring.check(f"Bearer {shown}", model="reviews", right="predict")
    ring.charge(grant, 7)
    with pytest.raises(Refused):
        ring.charge(grant, 1)


def test_wrong_keys_tell_nothing_by_their_time_and_slow_nobody_down(file):
    key, shown = create_key(file, "shop")
    ring = KeyRing(file)
    asked = {
        "unknown": f"Bearer dlp_{'0' * 12}_{'x' * 43}",
        "wrong at the first letter": f"Bearer dlp_{key.id}_{'*' * 43}",
        "wrong at the last letter": f"Bearer {shown[:-1]}*",
    }
    took: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(4000):
        for name, authorization in asked.items():
            began = time.perf_counter()
            with pytest.raises(Refused):
                ring.check(authorization, model="reviews", right="predict")
            took[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in took.items()}
    assert max(medians.values()) < 1.25 * min(medians.values()), medians

    def measure() -> float:
        medians = []
        for _ in range(5):  # the quietest moment of a busy machine
            times = []
            for _ in range(400):
                began = time.perf_counter()
                ring.check(f"Bearer {shown}", model="reviews", right="predict")
                times.append(time.perf_counter() - began)
            medians.append(statistics.median(times))
        return min(medians)

    before = measure()
    for number in range(10_000):
        with pytest.raises(Refused):
            ring.check(f"Bearer dlp_{number:012x}_{'x' * 43}", model="reviews", right="predict")
    assert measure() < 1.5 * before
    assert not ring._allowances  # nothing is kept of them


def test_what_cannot_be_a_key_is_refused(file):
    for wrong in (
        {"rights": ["all"]},
        {"rate": "10"},
        {"rate": "0/s"},
        {"quota": -1},
        {"zone": "Mars/Olympus"},
        {"zone": "../etc"},
        {"ends": "tomorrow"},
        {"ends": "2020-01-01"},
    ):
        with pytest.raises(SettingError):
            create_key(file, "shop", **wrong)
    with pytest.raises(SettingError, match="cannot be called"):
        create_key(file, "a shop")
    create_key(file, "shop")
    with pytest.raises(SettingError, match="There is a valid key 'shop'"):
        create_key(file, "shop")
    with pytest.raises(SettingError, match="there are: shop"):
        revoke_key(file, "other")


@pytest.mark.slow
def test_two_processes_that_make_keys_at_the_same_time_lose_none(file):
    program = (
        "import sys\nfrom pathlib import Path\nfrom dlpipe.serving.key_file import create_key\n"
        "for number in range(20):\n    create_key(Path(sys.argv[1]), f'{sys.argv[2]}{number}')\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(file), name]) for name in "abc"]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert len(read_keys(file)) == 60


def test_the_commands_make_list_and_revoke(file, monkeypatch):
    monkeypatch.setenv("DLPIPE_STATE", str(file.parent))
    made = CliRunner().invoke(main, ["keys", "create", "shop", "--model", "reviews", "--rate", "20/s"])
    shown = made.stdout.strip()
    assert KeyRing(file).check(f"Bearer {shown}", model="reviews", right="feedback")
    assert re.search("'reviews' is registered; there are: none yet|could not be looked up", made.stderr)
    listed = CliRunner().invoke(main, ["keys", "list"])
    assert "shop  valid" in listed.output
    assert shown not in listed.output
    assert read_keys(file).popitem()[1].hash not in listed.output
    revoked = CliRunner().invoke(main, ["keys", "revoke", "shop"])
    assert revoked.output.startswith("The key shop (")
    (row,) = json.loads(CliRunner().invoke(main, ["keys", "list", "--json"]).output)
    assert (row["state"], row["models"]) == ("revoked", ["reviews"])
    file.chmod(0o644)
    refused = CliRunner().invoke(main, ["keys", "list"])
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1)


# -- sums ---------------------------------------------------------------------------------------------------------


def fill(log: RequestLog) -> None:
    entries = []
    for number in range(30):
        entry = make_entry(("reviews", "tickets")[number % 2], number % 4, version=(1, 1, 2, 0)[number % 4])
        object.__setattr__(entry, "key", f"k{number % 3}")
        object.__setattr__(entry, "duration_ms", 0.1 + number)
        object.__setattr__(entry, "arrived", datetime(2026, 11, 27 + number % 2, 23, 59, tzinfo=UTC).timestamp())
        if number % 5 == 0:
            object.__setattr__(entry, "status", 503)
        entries.append(entry)
    log.write(entries[:20])
    log.flush()
    log.write(entries[20:])  # these are in journals


def test_the_sums_are_those_of_the_log(log):
    fill(log)
    tables = [read_logged(name) for name in ("reviews_requests", "tickets_requests", REFUSED)]
    rows = pa.concat_tables(tables)
    first = rows.filter(pc.equal(rows["row"], 0))
    failed = first.filter(pc.greater_equal(first["status"], 400))
    (whole,) = sum_usage([])
    assert (whole.calls, whole.rows, whole.tokens) == (
        len(set(rows["request_id"].to_pylist())),
        pc.sum(first["rows"]).as_py(),
        pc.sum(rows["tokens"]).as_py(),
    )
    assert whole.calls == 30
    assert (whole.errors, whole.error_seconds) == (
        failed.num_rows,
        pytest.approx(pc.sum(failed["duration_ms"]).as_py() / 1000),
    )
    assert whole.seconds == pytest.approx(sum(0.1 + number for number in range(30)) / 1000)
    for by in (["key"], ["model"], ["version"], ["day"], ["key", "model", "version", "day"]):
        parts = sum_usage(by)
        for name in ("calls", "rows", "tokens", "errors"):
            assert sum(getattr(part, name) for part in parts) == getattr(whole, name), (by, name)
        assert sum(part.seconds for part in parts) == pytest.approx(whole.seconds)
    log.flush()
    assert sum_usage([]) == [whole]  # committed or not, it is the same


def test_the_command_prints_sums_as_a_table_csv_and_json(log):
    assert "Nothing has been asked" in CliRunner().invoke(main, ["usage"]).output
    fill(log)
    table = CliRunner().invoke(main, ["usage", "--by", "model,version"])
    assert table.output.splitlines()[0].split() == [
        *("model", "version", "calls", "rows", "tokens", "seconds", "errors", "error_seconds")
    ]
    csv = CliRunner().invoke(main, ["usage", "--by", "day", "--since", "2026-11-28", "--csv"]).output.splitlines()
    assert csv[0] == "day,calls,rows,tokens,seconds,errors,error_seconds"
    assert [line.partition(",")[0] for line in csv[1:]] == ["2026-11-28"]
    until = CliRunner().invoke(main, ["usage", "--by", "key,day", "--until", "2026-11-27", "--json"]).output
    assert {(row["key"], row["day"]) for row in json.loads(until)} == {(f"k{n}", "2026-11-27") for n in range(3)}
    for wrong in (["--by", "colour"], ["--since", "yesterday"], ["--csv", "--json"]):
        assert CliRunner().invoke(main, ["usage", *wrong]).exit_code == 1
