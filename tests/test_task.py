"""The task room: backbones, batches, the model as files, the predictor."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from dlpipe.errors import BackboneNotFound, ModelNotFound
from dlpipe.task import Inputs, Target, open_predictor, protocol
from dlpipe.task.batches import bucket_batches, sort_batches
from dlpipe.task.texts import DEFAULT_BACKBONE, TextModel, find_backbone
from dlpipe.task.texts.model import TOKENIZER
from dlpipe.task.texts.tokens import TextTokenizer


@pytest.mark.parametrize("half", [Inputs, Target])
def test_the_protocol_lists_when_each_method_is_called_and_which_may_be_left_out(half: type) -> None:
    table = (protocol.__doc__ or "").partition("What is called when")[2].partition("\n\n")[2].partition("\n\n")[0]
    listed = [line.partition(half.__name__)[2] for line in table.splitlines() if half.__name__ in line]
    words = [word for line in listed for word in re.sub(r"\([^)]*\)", "", line).split()]
    methods = {name for name, value in vars(half).items() if inspect.isfunction(value)}
    assert {word.strip("[]") for word in words} == methods
    optional = {word.strip("[]") for word in words if word.startswith("[")}
    assert optional | {"split_parts"} & methods == methods - half.__abstractmethods__  # type: ignore[attr-defined]


def test_default_backbone_is_there_without_a_network() -> None:
    backbone = find_backbone()
    assert (backbone.folder / "config.json").is_file()
    assert len(backbone.digest) == 64


def test_unknown_backbone_names_the_one_that_ships() -> None:
    with pytest.raises(BackboneNotFound, match=f"'no/such-model' is neither a folder nor .*{DEFAULT_BACKBONE}"):
        find_backbone("no/such-model")


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackboneNotFound, match=r"model\.safetensors"):
        find_backbone(str(tmp_path))


def test_bucketed_batches_hold_every_row_once_and_differ_by_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    first, again, second = (bucket_batches(lengths, 32, seed=1, epoch=epoch) for epoch in (0, 0, 1))
    assert sorted(np.concatenate(first).tolist()) == list(range(1000))
    assert [b.tolist() for b in first] == [b.tolist() for b in again]
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


def test_bucketed_batches_are_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 3200)
    padded = sum(len(rows) * lengths[rows].max() for rows in bucket_batches(lengths, 32, seed=0, epoch=0))
    assert padded < 1.05 * lengths.sum()


def test_sorted_batches_stay_within_the_tokens() -> None:
    lengths = np.array([500, 3, 4, 300, 5, 2])
    batches = [rows.tolist() for rows in sort_batches(lengths, tokens=600)]
    assert sorted(row for rows in batches for row in rows) == [0, 1, 2, 3, 4, 5]
    assert all(len(rows) == 1 or len(rows) * lengths[rows[0]] <= 600 for rows in batches)


def test_model_survives_a_folder(tiny_model: TextModel, tmp_path: Path) -> None:
    loaded = TextModel.load(tiny_model.save(tmp_path / "model"))
    assert loaded.digest == tiny_model.digest
    assert loaded.labels == ("negative", "positive")


def test_a_model_that_was_read_is_pickled_as_it_came(tiny_model: TextModel) -> None:
    fresh = pickle.dumps(TextModel(dict(tiny_model.files)))
    read = pickle.loads(fresh)
    assert (read.digest, read.labels) == (tiny_model.digest, tiny_model.labels)
    assert pickle.dumps(read) == fresh


def test_folder_that_lacks_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"lacks model\.safetensors"):
        TextModel.load(tmp_path)


def test_probabilities_keep_the_order_of_rows_and_do_not_depend_on_the_batch(tiny_model: TextModel) -> None:
    predictor = open_predictor(tiny_model, threads=1)
    texts = ["the film was good", "what a bad soup indeed and all i found", "good", "", "😀 unheard of"] * 60
    together = predictor.predict_outputs(texts)
    alone = np.concatenate([predictor.predict_outputs([text]) for text in texts[:5]])
    np.testing.assert_allclose(together[:5], alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-6)
    assert together.shape == (300, 2)
    assert together.dtype == np.float32


def test_the_model_says_how_much_of_a_text_it_reads(tiny_model: TextModel) -> None:
    predictor = open_predictor(tiny_model, threads=1)
    assert predictor.count_seen_characters("the film was good") == len("the film was good")
    encode = TextTokenizer(tiny_model.files[TOKENIZER].decode(), max_length=4)
    assert encode.count_seen_characters("the film was good") == len("the film")


def test_no_texts_give_no_probabilities(tiny_model: TextModel) -> None:
    assert open_predictor(tiny_model, threads=1).predict_outputs([]).shape == (0, 2)


def test_dropout_is_before_the_head_alone(tiny_backbone: Path) -> None:
    import torch

    from dlpipe.task.texts.backbones import find_backbone
    from dlpipe.task.texts.network import load_pretrained_network

    network = load_pretrained_network(find_backbone(str(tiny_backbone)), 2, dropout=0.3)
    shares = {name: part.p for name, part in network.named_modules() if isinstance(part, torch.nn.Dropout)}
    assert shares.pop("dropout") == 0.3
    assert set(shares.values()) == {0.0}


def test_a_tokenizer_that_is_a_sentencepiece_model_alone_is_read(tmp_path: Path) -> None:
    import sentencepiece
    from tokenizers import Tokenizer

    from dlpipe.task.texts.network import read_tokenizer_json

    words = [f"a good film and a bad one, number {number}" for number in range(200)]
    with (tmp_path / "sentencepiece.bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words), model_writer=file, vocab_size=40, minloglevel=2
        )
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    tokenizer = Tokenizer.from_str(read_tokenizer_json(tmp_path))
    assert tokenizer.decode(tokenizer.encode("a good film").ids) == "a good film"
