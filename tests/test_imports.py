"""What a training imports, and what it leaves until somebody asks."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dlpipe.cli import main

pytestmark = pytest.mark.slow

HEAVY = ["datasets", "fastapi", "mlflow", "peft", "scipy", "sentence_transformers", "sklearn", "transformers"]


def run_python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_command_has_all_objects_looked_through_seldom() -> None:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        CliRunner().invoke(main, ["tables", "--help"])
        assert gc.get_threshold() == (700, 10, 1000)
    finally:
        gc.set_threshold(*before)


PROMISED = """
import sys
import dlpipe.training.loop
print([name for name in sys.argv[1:] if name in sys.modules])
import lightning_utilities.core.imports, datasets, mlflow, torchmetrics
import pytorch_lightning.loggers
from pytorch_lightning.loggers import MLFlowLogger
assert MLFlowLogger is sys.modules["pytorch_lightning.loggers.mlflow"].MLFlowLogger
assert issubclass(MLFlowLogger, pytorch_lightning.loggers.Logger)
assert "MLFlowLogger" in pytorch_lightning.loggers.__all__
assert pytorch_lightning.loggers._MLFLOW_AVAILABLE
assert not hasattr(pytorch_lightning.loggers, "NoSuchLogger")
assert torchmetrics.functional.bert_score is sys.modules["torchmetrics.functional.text.bert"].bert_score
assert issubclass(torchmetrics.text.InfoLM, torchmetrics.Metric)
assert lightning_utilities.core.imports.module_available("sklearn.metrics")
print(datasets.Dataset.__name__, mlflow.MlflowClient.__name__)
"""


def test_a_training_is_imported_without_what_it_does_not_use_and_that_is_there_for_whoever_asks() -> None:
    assert run_python(PROMISED, *HEAVY).splitlines() == ["[]", "Dataset MlflowClient"]


ALREADY = """
import numpy
numpy.Inf = numpy.inf
import flash
from flash.text import TextClassifier
from pytorch_lightning.loggers import MLFlowLogger
import dlpipe.training.loop
import pytorch_lightning.loggers
print(pytorch_lightning.loggers.MLFlowLogger is MLFlowLogger, len(TextClassifier.available_backbones()) > 2)
"""


def test_flash_stays_whole_for_whoever_imports_it_first() -> None:
    assert run_python(ALREADY) == "True True"


AUTOLOG = """
import sys
import mlflow
from dlpipe.training.frame import pytorch_lightning
import torch

class Line(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, at):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

mlflow.set_tracking_uri(sys.argv[1])
mlflow.pytorch.autolog(log_models=False, disable_for_unsupported_versions=False)
trainer = pytorch_lightning.Trainer(
    max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
)
trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(4, 1)))
(run,) = mlflow.search_runs(output_format="list")
print(run.data.params["optimizer_name"], "loss" in run.data.metrics)
"""


def test_mlflow_logs_a_training_of_lightning_by_itself(tmp_path: Path) -> None:
    assert run_python(AUTOLOG, f"sqlite:///{tmp_path / 'mlflow.db'}").split("\n")[-1] == "SGD True"


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_macro_f1_is_that_of_scikit_learn(classes: int) -> None:
    from sklearn.metrics import f1_score

    from dlpipe.task import find_task

    draw = torch.Generator().manual_seed(classes)
    logits, target = torch.randn(50, 9, generator=draw), torch.randint(classes, (50,), generator=draw)
    wanted = f1_score(target, logits.argmax(1), average="macro")
    assert find_task().target.score_epoch(logits, target)["val_f1"] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("warm", [0, 3])
def test_the_schedule_is_that_of_transformers(warm: int) -> None:
    from transformers import get_linear_schedule_with_warmup

    from dlpipe.training.frame import _warm_up_and_decay

    def rates(schedule: object) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        made, found = schedule(optimizer, num_warmup_steps=warm, num_training_steps=8), []  # type: ignore[operator]
        for _ in range(10):
            optimizer.step()
            made.step()
            found.append(made.get_last_lr()[0])
        return found

    assert rates(_warm_up_and_decay) == rates(get_linear_schedule_with_warmup)
