"""Our BERT beside the one of transformers: the same names, numbers and files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dlpipe.task.texts import TextModel, find_backbone
from dlpipe.task.texts.bert import Bert, load_bert
from dlpipe.task.texts.network import load_pretrained_network, read_tokenizer_json, restore_network

LOOKS = ("eager", "sdpa")


def load_with_transformers(folder: Path) -> Any:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    model.pooler = None
    return model


def make_batch(words: int, *, padded: bool) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    mask = torch.ones(4, 40, dtype=torch.int64)
    if padded:
        mask = (torch.arange(40) < torch.tensor([[40], [31], [7], [1]])).long()
    return {"input_ids": torch.randint(words, (4, 40), generator=draw), "attention_mask": mask}


def load_both(folder: Path, look: str) -> tuple[Bert, Any]:
    mine, other = load_bert(folder), load_with_transformers(folder)
    assert mine is not None
    for network in (mine, other):
        network.set_attn_implementation(look)
    return mine, other


@pytest.fixture(params=["tiny", "packaged"])
def backbone(request: pytest.FixtureRequest, tiny_backbone: Path) -> Path:
    return tiny_backbone if request.param == "tiny" else find_backbone().folder


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("padded", [True, False])
def test_states_are_those_of_transformers(backbone: Path, look: str, padded: bool) -> None:
    mine, other = load_both(backbone, look)
    given = make_batch(mine.config.vocab_size, padded=padded)
    with torch.no_grad():
        found, wanted = (network(**given).last_hidden_state for network in (mine, other))
    real = given["attention_mask"].bool()
    torch.testing.assert_close(found[real], wanted[real], rtol=0, atol=1e-6)


@pytest.mark.parametrize("look", LOOKS)
def test_padding_that_is_skipped_is_seen_by_attention_alone_and_changes_nothing(backbone: Path, look: str) -> None:
    network = load_bert(backbone)
    assert network is not None
    network.set_attn_implementation(look)
    given = make_batch(network.config.vocab_size, padded=True)
    seen: list[torch.Size] = []
    network.encoder.layer[0].intermediate.register_forward_hook(
        lambda _, states, wide: seen.append(states[0].shape)
    )
    with torch.no_grad():
        whole = network(**given).last_hidden_state
        network.skips_padding = True
        skipped = network(**given).last_hidden_state
    real = given["attention_mask"].bool()
    torch.testing.assert_close(skipped[real], whole[real], rtol=0, atol=1e-6)
    assert [tuple(shape[:2]) for shape in seen] == [(4, 40), (1, 79)]


@pytest.mark.parametrize("skips_padding", [False, True])
@pytest.mark.parametrize("look", LOOKS)
def test_a_bias_of_attention_does_what_it_does_in_transformers(
    tiny_backbone: Path, look: str, skips_padding: bool
) -> None:
    mine, other = load_both(tiny_backbone, look)
    mine.skips_padding = skips_padding  # of a loaded predictor; a bias has no padding to skip
    given = make_batch(mine.config.vocab_size, padded=True)
    weights = torch.rand(4, 40, generator=torch.Generator().manual_seed(1))
    given["attention_mask"] = weights.log()[:, None, None, :].expand(-1, 1, 40, -1)
    with torch.no_grad():
        found, wanted = (network(**given).last_hidden_state for network in (mine, other))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("look", LOOKS)
def test_gradients_are_those_of_transformers(backbone: Path, look: str, autocast: bool) -> None:
    mine, other = load_both(backbone, look)
    given = make_batch(mine.config.vocab_size, padded=True)
    for network in (mine, other):
        with torch.autocast("cpu", enabled=autocast):
            states = network(**given).last_hidden_state.float()
        (states * given["attention_mask"].unsqueeze(-1)).square().sum().backward()
    wanted = dict(other.named_parameters())
    for name, parameter in mine.named_parameters():
        scale = float(wanted[name].grad.abs().max())
        torch.testing.assert_close(
            parameter.grad, wanted[name].grad, rtol=1e-5, atol=max(1e-6, scale * (1e-2 if autocast else 1e-5))
        )


def test_weights_and_modules_have_the_names_and_the_order_of_transformers(backbone: Path) -> None:
    mine, other = load_both(backbone, "sdpa")
    assert list(mine.state_dict()) == list(other.state_dict())
    assert all(value.equal(other.state_dict()[name]) for name, value in mine.state_dict().items())
    assert [name for name, _ in mine.named_modules()] == [name for name, _ in other.named_modules()]


def test_a_trained_model_has_the_config_that_transformers_would_write(backbone: Path) -> None:
    mine, other = load_both(backbone, "sdpa")
    assert mine.config.to_json_string(use_diff=False) == other.config.to_json_string(use_diff=False)


def test_the_tokenizer_of_the_packaged_backbone_is_the_one_that_transformers_makes() -> None:
    from transformers import AutoTokenizer

    folder = find_backbone().folder
    made = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str()
    assert read_tokenizer_json(folder) == made


def test_the_head_is_drawn_as_it_was_with_transformers(tiny_backbone: Path) -> None:
    from dlpipe.task.texts import Backbone

    torch.manual_seed(3)
    network = load_pretrained_network(Backbone("tiny", tiny_backbone), 3)
    torch.manual_seed(3)
    assert network.head.weight.equal(torch.nn.Linear(32, 3).weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"position_embedding_type": "relative_key"},
        {"hidden_act": "gelu_new"},
        {"is_decoder": True},
        {"model_type": "roberta"},
        {"invented": 1},
    ],
)
def test_another_kind_of_bert_is_left_to_transformers(
    tiny_backbone: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = change_config(tiny_backbone, tmp_path, changes)
    assert load_bert(folder) is None


def test_weights_with_other_names_are_left_to_transformers(tiny_backbone: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from dlpipe.task.texts import Backbone

    folder = change_config(tiny_backbone, tmp_path, {})
    weights = load_file(folder / "model.safetensors")
    save_file(
        {f"bert.{name}": value for name, value in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert load_bert(folder) is None
    words = load_pretrained_network(Backbone("named", folder), 2).encoder.get_input_embeddings()
    assert words.weight.equal(weights["embeddings.word_embeddings.weight"])


def change_config(backbone: Path, folder: Path, changes: dict[str, Any]) -> Path:
    folder = Path(shutil.copytree(backbone, folder / "changed"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_a_model_is_restored_as_transformers_would(tiny_model: TextModel) -> None:
    from transformers import AutoConfig, AutoModel

    network = restore_network(tiny_model)
    config = json.loads(tiny_model.files["config.json"])
    other = AutoModel.from_config(AutoConfig.for_model(**config), dtype=torch.float32).eval()
    other.pooler = None
    other.load_state_dict(network.encoder.state_dict())
    given = make_batch(config["vocab_size"], padded=True)
    with torch.no_grad():
        found, wanted = (each(**given).last_hidden_state for each in (network.encoder, other))
    real = given["attention_mask"].bool()
    torch.testing.assert_close(found[real], wanted[real], rtol=0, atol=1e-6)


OPEN = """
import sys
from pathlib import Path
from dlpipe.task import open_predictor
from dlpipe.task.texts.network import Backbone, find_backbone, load_pretrained_network, read_tokenizer_json
print(open_predictor(Path(sys.argv[1]), engine="torch").predict_outputs(["so good"]).shape)
read_tokenizer_json(find_backbone().folder)
load_pretrained_network(find_backbone(), 2)
print("transformers" in sys.modules)
"""


def test_networks_of_plain_bert_load_without_transformers(tiny_model: TextModel, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(tiny_model.save(tmp_path / "model"))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert lines[:2] == ["(1, 2)", "False"]
