"""Engines: exported graphs beside torch, the choice, and a registered model that is opened with it."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import new_store, untouched_environment
from texts import reviews

from dlpipe.errors import BadRows, EngineUnavailable
from dlpipe.task import open_predictor, read_engine_numbers
from dlpipe.task.texts import TextModel
from dlpipe.task.texts.engines import (
    BF16,
    INT8,
    ONNX,
    TORCH,
    CheckSettings,
    EngineCheck,
    ServedModel,
    export_engines,
)
from dlpipe.task.texts.engines.comparison import choose_engine, explain_refusal
from dlpipe.task.texts.engines.kinds import explain_missing_instructions
from dlpipe.task.texts.engines.stored import ENGINES_FILE, Engines

TEXTS = ["the film was good", "awful plot and all", "", "😀", "what a superb score " * 30, "i found the soup dull"]
# no engine is refused for being slow: two cores that others use say little about the speed of a tiny model
ANY_SPEED = CheckSettings(gain=0.0)

FRESH = """
import json, sys
import mlflow.pyfunc
model = mlflow.pyfunc.load_model("models:/reviews/1")
found = model.predict(json.loads(sys.argv[1]))
print(json.dumps([found["p_positive"].tolist(), "torch" in sys.modules, "transformers" in sys.modules]))
"""


@pytest.fixture(scope="module")
def served(tiny_model: TextModel) -> ServedModel:
    """The tiny model with its engines."""
    texts, labels = zip(*reviews(), strict=True)
    return export_engines(tiny_model, texts, labels, settings=ANY_SPEED)


def choose_engine_in(served: ServedModel, engine: str) -> ServedModel:
    """Return ``served`` as if ``engine`` had been the fastest."""
    return dataclasses.replace(served, engines=dataclasses.replace(served.engines, chosen=engine))


@pytest.fixture
def folder(served: ServedModel, tmp_path: Path) -> Path:
    """The model's folder, with the choice of eight bits."""
    return choose_engine_in(served, INT8).save(tmp_path / "model")


def test_onnx_gives_the_probabilities_of_torch_for_texts_of_any_length_and_number(folder):
    exact = open_predictor(folder, engine=TORCH).predict_outputs(TEXTS)
    predictor = open_predictor(folder, engine=ONNX)
    np.testing.assert_allclose(predictor.predict_outputs(TEXTS), exact, atol=1e-5)
    np.testing.assert_allclose(predictor.predict_outputs(TEXTS[:1]), exact[:1], atol=1e-5)
    assert predictor.predict_outputs([]).shape == (0, 2)


def test_eight_bits_say_nearly_what_torch_says(served, folder):
    texts = [text for text, _ in reviews()]
    exact, close = (open_predictor(folder, engine=engine).predict_outputs(texts) for engine in (TORCH, INT8))
    assert (exact.argmax(1) == close.argmax(1)).all()
    assert 0 < np.abs(exact - close).max() < 0.05
    assert served.engines.check(INT8).largest_difference == pytest.approx(np.abs(exact - close).max(), abs=1e-3)


def test_with_eight_bits_a_text_gets_the_same_whatever_stands_beside_it(folder):
    predictor = open_predictor(folder, engine=INT8)
    alone = np.concatenate([predictor.predict_outputs([text]) for text in TEXTS])
    np.testing.assert_allclose(predictor.predict_outputs(TEXTS * 50)[: len(TEXTS)], alone, atol=1e-5)


def test_products_with_fixed_weights_are_integers_and_their_weights_are_gone(served):
    import onnx

    exact, small = (onnx.load_from_string(served.graphs[name]) for name in ("model.onnx", "model.int8.onnx"))
    operators = [node.op_type for node in small.graph.node]
    assert operators.count("MatMulIntegerToFloat") == 12  # two layers of six
    assert operators.count("MatMul") == 4  # attention, states times states
    weights = {tensor.name: tuple(tensor.dims) for tensor in exact.graph.initializer}
    kept = {tensor.name for tensor in small.graph.initializer}
    replaced = {node.input[1] for node in exact.graph.node if node.op_type == "MatMul"} & set(weights)
    assert len(replaced) == 12
    assert not replaced & kept


def test_chosen_engine_is_used_and_named(folder):
    predictor = open_predictor(folder)
    assert predictor.engine == INT8
    assert open_predictor(folder, engine="exact").engine == ONNX
    assert open_predictor(folder, engine=TORCH).engine == TORCH
    assert open_predictor(folder, device="cpu").engine == INT8


def test_model_without_engines_is_run_by_torch(tiny_model, tmp_path):
    assert open_predictor(tiny_model).engine == TORCH
    assert open_predictor(tiny_model, engine="exact").engine == TORCH
    folder = tiny_model.save(tmp_path / "plain")
    assert open_predictor(folder).engine == TORCH
    for model in (tiny_model, folder):
        with pytest.raises(EngineUnavailable, match="has no engine 'onnx': it was kept without"):
            open_predictor(model, engine=ONNX)


def test_engine_that_does_not_exist_is_refused_with_those_that_do(tiny_model):
    with pytest.raises(EngineUnavailable, match="no engine 'onxx'; there are torch, torch-bf16, onnx, onnx-int8"):
        open_predictor(tiny_model, engine="onxx")


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_damaged_graph_is_refused_by_name_and_passed_over_otherwise(served, folder, damage, caplog):
    file = folder / "model.int8.onnx"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-100] if damage == "cut" else served.graphs["model.onnx"])
    with pytest.raises(EngineUnavailable, match=r"model\.int8\.onnx' is missing, damaged or of other weights"):
        open_predictor(folder, engine=INT8)
    predictor = open_predictor(folder)
    assert predictor.engine == ONNX
    assert predictor.predict_outputs(TEXTS).shape == (len(TEXTS), 2)
    (line,) = caplog.messages
    assert line.startswith("engine onnx-int8 is not used: ")


def test_with_all_graphs_gone_or_their_list_damaged_torch_is_used_with_a_line(folder, caplog):
    for file in folder.glob("*.onnx"):
        file.unlink()
    assert open_predictor(folder).engine == TORCH
    assert len(caplog.messages) == 2
    caplog.clear()
    (folder / ENGINES_FILE).write_text('{"chosen": "onnx"')
    assert open_predictor(folder).engine == TORCH
    (line,) = caplog.messages
    assert line.startswith("torch is used: ")
    assert "is damaged" in line


def test_graph_of_other_weights_is_not_used(served, folder, tiny_model):
    engines = dataclasses.replace(served.engines, chosen=ONNX, weights="0" * 64)
    (folder / ENGINES_FILE).write_text(engines.to_json())
    assert open_predictor(folder).engine == TORCH


def test_eight_bits_are_not_used_on_a_machine_without_the_instructions(folder, monkeypatch, caplog):
    from dlpipe.task.texts.engines import kinds

    monkeypatch.setattr(kinds, "read_cpu_features", lambda: frozenset({"avx2"}))
    assert open_predictor(folder).engine == ONNX
    assert "this CPU has none of avx512_vnni" in caplog.text
    with pytest.raises(EngineUnavailable, match="not for this machine"):
        open_predictor(folder, engine=INT8)


def test_predictor_with_an_engine_can_be_sent_to_another_process(folder):
    predictor = open_predictor(folder, threads=1)
    sent = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(sent.predict_outputs(TEXTS), predictor.predict_outputs(TEXTS))
    assert sent.engine == INT8


def test_engines_survive_their_file_and_are_tags(served, tmp_path):
    engines = Engines.from_json((served.save(tmp_path / "model") / ENGINES_FILE).read_text())
    assert engines == served.engines
    assert engines.weights == served.digest == served.model.digest
    tags = engines.tags()
    assert tags["engine.chosen"] == engines.chosen
    numbers = read_engine_numbers(tags)
    assert numbers["onnx-int8"]["label_agreement"] == 1
    assert numbers["onnx"]["largest_difference"] < 1e-4
    assert set(map(type, tags.values())) == {str}


def test_fastest_good_engine_is_chosen_and_only_for_a_gain():
    def make_checks(*speeds: float, refused: str = "") -> list[EngineCheck]:
        return [
            EngineCheck(TORCH, speedup=1.0),
            EngineCheck(ONNX, speedup=speeds[0]),
            EngineCheck(INT8, speedup=speeds[1], refused=refused),
        ]

    assert choose_engine(make_checks(1.7, 3.3), gain=1.1) == INT8
    assert choose_engine(make_checks(1.7, 3.3, refused="it loses 0.80 points"), gain=1.1) == ONNX
    assert choose_engine(make_checks(1.05, 0.9), gain=1.1) == TORCH


def test_engine_with_fewer_bits_needs_labelled_rows(tiny_model):
    texts, labels = zip(*reviews()[:60], strict=True)
    few = export_engines(tiny_model, texts, labels, settings=ANY_SPEED)
    assert few.engines.check(INT8).refused == "there are 60 labelled rows to compare on, fewer than 200"
    assert few.engines.chosen in (TORCH, ONNX)
    assert set(few.graphs) == {"model.onnx"}
    with pytest.raises(BadRows, match="no texts to compare engines on"):
        export_engines(tiny_model, [])


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (100 * (0.9 - 0.895), ""),
        (100 * 2 / 397, "it loses 0.504 points of accuracy, more than 0.5"),
        (0.8, "it loses 0.80 points of accuracy, more than 0.5"),
    ],
)
def test_a_refusal_shows_the_digits_that_are_its_reason(lost: float, reason: str) -> None:
    assert (
        explain_refusal(EngineCheck(INT8, accuracy_lost=lost, label_agreement=0.99), 400, CheckSettings())
        == reason
    )


def test_eight_bits_are_refused_where_they_lose_accuracy(tiny_model, tmp_path):
    model = make_model_that_eight_bits_ruin(tiny_model)
    texts = [text for text, _ in reviews()]
    predicted = [model.labels[best] for best in open_predictor(model).predict_outputs(texts).argmax(1)]
    served = export_engines(model, texts, predicted, settings=ANY_SPEED)
    check = served.engines.check(INT8)
    assert check.accuracy_lost > 0.5
    assert check.refused.startswith(f"it loses {check.accuracy_lost:.2f} points of accuracy, more than 0.5")
    assert served.engines.chosen != INT8
    assert "model.int8.onnx" not in served.graphs
    with pytest.raises(EngineUnavailable, match="has no engine 'onnx-int8': it loses"):
        open_predictor(served.save(tmp_path / "model"), engine=INT8)


def make_model_that_eight_bits_ruin(model: TextModel) -> TextModel:
    """Return ``model`` with weights so large that scales of eight bits swallow the rest, yet with no effect.

    Normalised states sum to 0, so what is added to all weights of an output is multiplied by 0.
    """
    from safetensors.numpy import load, save

    weights = load(model.files["model.safetensors"])
    normal, dense = (
        "encoder.encoder.layer.0.attention.output.LayerNorm",
        "encoder.encoder.layer.0.intermediate.dense",
    )
    weights[f"{normal}.weight"] = np.ones_like(weights[f"{normal}.weight"])
    weights[f"{normal}.bias"] = np.zeros_like(weights[f"{normal}.bias"])
    weights[f"{dense}.weight"] = weights[f"{dense}.weight"] + np.float32(1000)
    return TextModel({**model.files, "model.safetensors": save(weights)})


def test_encoder_that_cannot_be_exported_is_kept_with_torch_and_the_reason(tiny_model, tmp_path, capfd):
    from transformers import FNetConfig, FNetModel

    from dlpipe.task.texts.network import TextNetwork, to_text_model

    config = FNetConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, intermediate_size=64)
    encoder = FNetModel(config, add_pooling_layer=False)
    model = to_text_model(
        TextNetwork(encoder, 2),
        tokenizer_json=tiny_model.files["tokenizer.json"].decode(),
        card={"task": "text-classification", "labels": ["negative", "positive"], "max_length": 32},
    )
    capfd.readouterr()
    served = export_engines(model, TEXTS)
    assert served.engines.chosen == TORCH
    assert "'aten::fft_fftn' to ONNX" in served.engines.check(ONNX).refused
    assert "made from the engine 'onnx'" in served.engines.check(INT8).refused
    assert "\n" not in served.engines.check(ONNX).line()
    assert capfd.readouterr().out == ""
    folder = served.save(tmp_path / "model")
    assert not list(folder.glob("*.onnx"))
    assert open_predictor(folder).engine == TORCH


@pytest.mark.skipif(bool(explain_missing_instructions(BF16)), reason=explain_missing_instructions(BF16))
def test_half_precision_of_torch_needs_no_file(tiny_model, served):
    exact, half = (open_predictor(tiny_model, engine=engine).predict_outputs(TEXTS) for engine in (TORCH, BF16))
    assert 0 < np.abs(exact - half).max() < 0.05
    assert served.engines.check(BF16).label_agreement > 0.98


def test_registered_model_is_opened_with_its_engine_in_a_fresh_process_without_torch(served, tiny_table, tmp_path):
    from dlpipe.inference import load_predictor
    from dlpipe.registry import log_and_register, resolve

    int8 = choose_engine_in(served, INT8)
    with untouched_environment():
        store = new_store(tmp_path)
        version = log_and_register(int8, name="reviews", example=TEXTS[:2], params={}, tags=int8.engines.tags())
        assert version.digest == served.model.digest
        assert resolve("reviews/1").tags["engine.chosen"] == INT8
        predictor = load_predictor("reviews/1")
        assert predictor.engine == INT8
        assert load_predictor("reviews/1", engine=TORCH).engine == TORCH
        environ = {**os.environ, "MLFLOW_TRACKING_URI": store.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run(
            [sys.executable, "-c", FRESH, json.dumps(TEXTS)],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        shares, *loaded = json.loads(done.stdout.splitlines()[-1])
        assert loaded == [False, False]
        np.testing.assert_allclose(shares, predictor.predict_outputs(TEXTS)[:, 1], atol=1e-6)
        listed = subprocess.run(
            [shutil.which("dlpipe", path=Path(sys.executable).parent), "models", "--json"],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(listed.stdout)[0]["engine"] == INT8
