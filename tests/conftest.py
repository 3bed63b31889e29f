"""A backbone small enough to train in a second, and tables to train it on."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import pytest
from disks import quick_folder
from searches import Search, searched
from texts import reviews, write_csv
from wheels import install_wheel

from dlpipe.collector import collect_seldom
from dlpipe.tables import Sources, TableVersion, ingest
from dlpipe.task.text_classification import TextClassData
from dlpipe.task.texts import TextModel, TextTraining
from dlpipe.training import fit

FLOWS = Path(__file__).parent / "flows"
IN_MEMORY = (
    *("cli_models", "cli_scheduler", "events", "exit_hooks", "page", "promotion", "registry", "scheduler"),
    *("orchestrator_decisions", "orchestrator_environment", "orchestrator_processes", "orchestrator_state"),
    "orchestrator_year",
)
"""Make many databases, each of whose writes would wait for the disk."""
TOGETHER = {
    **dict.fromkeys(("test_cluster_runs", "test_tuning"), "ray"),
    **dict.fromkeys(("test_init_project", "test_wheel"), "wheel"),
}
"""Look at one search, or use one environment with the wheel."""

collect_seldom()

# a shell's background jobs ignore Ctrl-C, and would pass that on to the commands that tests run
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Have temporary folders elsewhere if a ``.metaflow`` lies above them: runs of all tests would go there."""
    if not lies_in_project(Path(tempfile.gettempdir()).resolve()):
        return
    others = [
        Path(name) for name in ("/var/tmp", "/dev/shm", f"/run/user/{os.getuid()}") if os.access(name, os.W_OK)
    ]
    for other in filter(lambda folder: not lies_in_project(folder), others):
        place = other / f"dlpipe-tests-{os.getuid()}"
        place.mkdir(exist_ok=True)
        os.environ["TMPDIR"], tempfile.tempdir = str(place), None
        return


def lies_in_project(folder: Path) -> bool:
    """Whether Metaflow would keep runs made in ``folder`` above it, or in it."""
    return any((one / ".metaflow").is_dir() for one in (folder, *folder.parents))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, where tests run in several processes, those of a file and those of the one big project.

    The pages of the documentation come first: they take minutes, in which another process does all the rest. Then
    come the other files with slow tests: what comes last should be short, since one process waits for the other.
    Whatever runs flows is slow, on the day it is born.
    """
    for item in items:
        if FLOWS in item.path.parents:
            item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.stem != "test_docs", item.path not in slow))


def group_of(item: pytest.Item) -> str:
    """Return the name of the tests that share with ``item`` what takes long to make."""
    if item.path.parent == FLOWS and "project" in getattr(item, "fixturenames", ()):
        return "project"
    return TOGETHER.get(item.path.stem, item.path.stem)


@pytest.fixture(autouse=True, scope="module")
def look_for_runs_anew() -> Iterator[None]:
    """Have Metaflow not look where tests of another module had it look: it remembers its folder for good."""
    yield
    if storage := sys.modules.get("metaflow.plugins.datastores.local_storage"):
        storage.LocalStorage.datastore_root = None


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT of width 32 that knows the words of ``reviews``."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("backbone")
    words = sorted({word for text, _ in reviews() for word in text.split()})
    vocab = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_table(tmp_path_factory: pytest.TempPathFactory) -> TableVersion:
    """``reviews`` as a Delta table with the three splits."""
    folder = tmp_path_factory.mktemp("tables")
    source = write_csv(folder / "reviews.csv", reviews())
    return ingest(Sources(data=str(source)), str(folder / "reviews"), settings=TextClassData()).table


@pytest.fixture(scope="session")
def tiny_settings(tiny_backbone: Path) -> TextTraining:
    """Three quick epochs that learn ``reviews``."""
    return TextTraining(backbone=str(tiny_backbone), epochs=3, learning_rate=5e-3, batch_size=16, threads=1)


@pytest.fixture(scope="session")
def tiny_model(tiny_table: TableVersion, tiny_settings: TextTraining) -> TextModel:
    """A trained classifier of a few kilobytes."""
    return fit(tiny_table, settings=tiny_settings, say=None).model


@pytest.fixture(scope="session")
def search(tiny_table: TableVersion, tiny_settings: TextTraining) -> Search:
    """A search on this machine alone."""
    return searched(tiny_table, tiny_settings)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which the wheel is installed."""
    return install_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of the test's own; in memory for the tests that would wait for the disk and are not about it."""
    if request.path.stem.removeprefix("test_") not in IN_MEMORY:
        yield tmp_path
        return
    with quick_folder() as folder:
        yield folder
