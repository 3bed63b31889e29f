"""The training room: learning, repeating exactly, going on after a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dlpipe.errors import BadRows, SettingError, TrainingFailed
from dlpipe.settings import read_settings
from dlpipe.tables import TableVersion, read_table, write_table
from dlpipe.task import open_predictor
from dlpipe.task.texts import TextTraining
from dlpipe.task.texts.model import WEIGHTS
from dlpipe.training import EpochScore, FolderCheckpoints, fit


def test_training_learns_the_texts(tiny_table: TableVersion, tiny_settings: TextTraining) -> None:
    losses: dict[int, float] = {}
    fitted = fit(
        tiny_table,
        settings=replace(tiny_settings, epochs=5),
        on_loss=lambda *loss: losses.update([loss]),
        say=None,
    )
    assert list(losses) == [*range(1, len(losses) + 1)]
    assert losses[len(losses)] < losses[1]
    test = read_table(tiny_table, split="test")
    guess = open_predictor(fitted.model, threads=1).predict_outputs(test["text"].to_pylist()).argmax(1)
    truth = [fitted.model.labels.index(label) for label in test["label"].to_pylist()]
    assert np.mean(guess == truth) > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tiny_table: TableVersion, tiny_settings: TextTraining
) -> None:
    short = replace(tiny_settings, epochs=1)
    first, again = (fit(tiny_table, settings=short, say=None).model.digest for _ in range(2))
    assert first == again
    assert fit(tiny_table, settings=replace(short, seed=7), say=None).model.digest != first


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_either_precision_learns_and_keeps_weights_of_32_bits(
    precision: Literal["32", "bf16"], tiny_table: TableVersion, tiny_settings: TextTraining
) -> None:
    from safetensors.torch import load

    fitted = fit(tiny_table, settings=replace(tiny_settings, epochs=5, precision=precision), say=None)
    assert fitted.best.scores["val_accuracy"] > 0.9
    assert {str(value.dtype) for value in load(fitted.model.files[WEIGHTS]).values()} == {"torch.float32"}


@pytest.mark.parametrize("strategy", ["freeze", "lora", "no_freeze", "freeze_unfreeze", "unfreeze_milestones"])
def test_going_on_from_a_checkpoint_gives_the_weights_of_an_undisturbed_training(
    strategy: str, tiny_table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    settings = replace(tiny_settings, epochs=4, strategy=strategy, unfreeze_modules=6, patience=9)
    whole = fit(tiny_table, settings=settings, say=None)
    for stop_after in (1, 3):
        kept = FolderCheckpoints(tmp_path / f"{stop_after}")
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_table, settings=settings, checkpoints=kept, on_epoch=_stop_in(stop_after + 1), say=None)
        lines: list[str] = []
        resumed = fit(tiny_table, settings=settings, checkpoints=kept, say=lines.append)
        assert resumed.resumed_after == stop_after
        assert resumed.model.digest == whole.model.digest
        assert [score.val_loss for score in resumed.epochs] == [score.val_loss for score in whole.epochs]
        assert not any(line.startswith("epoch 1/") for line in lines)


def _stop_in(epoch: int):
    def stop(score: EpochScore) -> None:
        if score.epoch == epoch:
            raise KeyboardInterrupt

    return stop


def test_frozen_backbone_keeps_its_weights(tiny_table: TableVersion, tiny_settings: TextTraining) -> None:
    from safetensors.torch import load, load_file

    fitted = fit(tiny_table, settings=replace(tiny_settings, strategy="freeze", epochs=1), say=None)
    before = load_file(Path(tiny_settings.backbone) / "model.safetensors")
    after = load(fitted.model.files["model.safetensors"])
    name = "encoder.layer.0.attention.self.query.weight"
    assert after[f"encoder.{name}"].equal(before[name])


def test_adapters_learn_are_merged_and_leave_small_checkpoints(
    tiny_table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load, load_file

    settings = replace(tiny_settings, strategy="lora", epochs=8, learning_rate=0.01, lora_rank=4)
    kept = FolderCheckpoints(tmp_path / "kept")
    fitted = fit(tiny_table, settings=settings, checkpoints=kept, say=None)
    assert fitted.best.scores["val_accuracy"] > 0.9
    before, after = (
        load_file(Path(tiny_settings.backbone) / "model.safetensors"),
        load(fitted.model.files[WEIGHTS]),
    )
    encoder = {f"encoder.{name}" for name in before if "pooler" not in name}
    assert set(after) == encoder | {"head.weight", "head.bias"}
    query = "encoder.layer.0.attention.self.query.weight"
    assert torch.linalg.matrix_rank(after[f"encoder.{query}"] - before[query], rtol=1e-4) == 4
    name = "encoder.embeddings.word_embeddings.weight"
    assert after[name].equal(before[name.removeprefix("encoder.")])
    latest = kept.latest()
    assert latest is not None
    assert all("lora" in name or name.startswith("head") for name in load_file(latest / "best.safetensors"))


def test_training_stops_early_and_keeps_the_best_epoch(
    tiny_table: TableVersion, tiny_settings: TextTraining
) -> None:
    fitted = fit(tiny_table, settings=replace(tiny_settings, epochs=30, patience=2, learning_rate=0.02), say=None)
    scores = [score.score for score in fitted.epochs]
    assert len(scores) == scores.index(max(scores)) + 3 < 30
    assert fitted.best.score == max(scores)


def test_a_loss_that_is_not_a_number_stops_with_advice(
    tiny_table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    source = Path(tiny_settings.backbone)
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(source / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"] += float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match="loss became nan in step 1 of epoch 1; lower learning_rate"):
        fit(tiny_table, settings=replace(tiny_settings, backbone=str(tmp_path)), say=None)


def test_three_classes_train_and_predict(tiny_settings: TextTraining, tmp_path: Path) -> None:
    import pyarrow as pa

    words = {"a": "good", "b": "bad", "c": "dull"}
    rows = [(f"{n}", f"the film {n} was {words[label]}", label) for n in range(20) for label in words]
    splits = ["test" if n % 5 == 0 else "valid" if n % 5 == 1 else "train" for n in range(len(rows))]
    table = write_table(
        str(tmp_path / "three"),
        pa.table([*map(list, zip(*rows, strict=True)), splits], names=["row_id", "text", "label", "split"]),
        mode="overwrite",
    )
    fitted = fit(table, settings=replace(tiny_settings, epochs=6), say=None)
    assert fitted.model.labels == ("a", "b", "c")
    assert open_predictor(fitted.model).predict_outputs(["the film 3 was dull"]).argmax() == 2


def test_a_table_without_valid_rows_is_refused(tiny_settings: TextTraining, tmp_path: Path) -> None:
    import pyarrow as pa

    rows = pa.table({"row_id": ["1"], "text": ["good"], "label": ["a"], "split": ["train"]})
    with pytest.raises(BadRows, match="no rows in its 'valid' split"):
        fit(write_table(str(tmp_path / "t"), rows, mode="overwrite"), settings=tiny_settings)


def test_settings_that_can_hardly_work_are_said_and_so_is_a_model_that_guesses(
    tiny_table: TableVersion, tiny_settings: TextTraining
) -> None:
    lines: list[str] = []
    settings = replace(tiny_settings, strategy="freeze", epochs=1, learning_rate=1e-6)
    fit(tiny_table, settings=settings, say=lines.append)
    assert "learning_rate 1e-06 is 10000 times below the 0.01 of strategy freeze" in lines[0]
    assert "the model is no better than guessing: its macro F1 on the valid split is 0." in lines[-1]
    lines.clear()
    fit(tiny_table, settings=replace(settings, epochs=8, learning_rate=None), say=lines.append)
    assert not [line for line in lines if "guessing" in line or "learning_rate" in line]


def test_progress_reads_well_in_a_log(tiny_table: TableVersion, tiny_settings: TextTraining) -> None:
    lines: list[str] = []
    fit(tiny_table, settings=replace(tiny_settings, epochs=1), say=lines.append)
    assert len([line for line in lines if line.startswith("epoch")]) == 1
    assert lines[0].startswith("epoch 1/1  train_loss ")
    assert "rows/s" in lines[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1e-3}, "no setting 'learning_rat'; did you mean 'learning_rate'"),
        ({"learning_rate": 0}, "learning_rate = 0 is refused"),
        ({"learning_rate": math.nan}, "learning_rate = nan is refused: it is not a number"),
        ({"epochs": 0}, "epochs = 0 is refused"),
        ({"strategy": "frieze"}, "strategy = 'frieze' is refused"),
        ({"dropout": "much"}, "dropout = 'much' is refused"),
    ],
)
def test_settings_out_of_range_or_misspelt_say_what_to_do(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_settings(TextTraining, values, where="[training]")


def test_a_checkpoint_is_whole_or_not_there_when_its_writer_is_killed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number}").write_bytes(os.urandom(200_000))
    program = f"""
        from pathlib import Path
        from dlpipe.training import FolderCheckpoints
        kept = FolderCheckpoints(Path({str(tmp_path / "kept")!r}))
        print("ready", flush=True)
        while True:
            kept.save(Path({str(source)!r}))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    kept = FolderCheckpoints(tmp_path / "kept")
    while kept.latest() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    latest = kept.latest()
    assert latest is not None
    assert sorted(file.name for file in latest.iterdir()) == sorted(file.name for file in source.iterdir())


def test_a_cap_on_rows_draws_them_by_the_seed(tiny_table: TableVersion, tiny_settings: TextTraining) -> None:
    lines: list[str] = []
    capped = replace(tiny_settings, epochs=1, max_train_rows=40)
    first = fit(tiny_table, settings=capped, say=lines.append)
    assert first.model.digest == fit(tiny_table, settings=capped, say=None).model.digest
    assert (
        first.model.digest != fit(tiny_table, settings=replace(capped, max_train_rows=41), say=None).model.digest
    )
    assert first.model.labels == ("negative", "positive")
