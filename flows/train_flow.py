"""Text with labels in; a registered, scored and explained model out."""

from metaflow import Parameter, card, checkpoint, current, mlflow_bridge, retry, schedule, step, trigger

from dlpipe.flows import LifeCycleFlow, TaskCheckpoints, print_summary
from dlpipe.flows.settings import TrainFlowSettings, settings_file


@schedule(weekly=True)
@trigger(event={"name": "model-drifted", "parameters": {name: name for name in ("table", "model", "retrain")}})
@mlflow_bridge
class TrainFlow(LifeCycleFlow):
    """Train a text classifier and take it through its whole life.

    1. start      ingest labelled text into a pinned version of a Delta table; a run that drift started takes the
                  rows with labels that the table has by now
    2. tune       search for the best settings with Ray Tune
    3. train      fine-tune the backbone with lightning-flash, going on from a checkpoint if killed
    4. evaluate   score it on the test split, beside a TF-IDF baseline
    5. register   register the version as challenger with its engines, its pipeline and its explainer; the gate
                  decides whether they become champions
    6. predict    score the whole table version into a predictions table
    7. explain    attribute predictions to the parts of rows (words, columns) with SHAP's values
    8. end        print where everything is
    """

    settings = settings_file(__file__, TrainFlowSettings)
    retrain = Parameter("retrain", type=bool, default=False, help="Ingest nothing: train on the table as it is.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to tune and score on.")

    @card(type="blank")
    @step
    def start(self):
        """Ingest: one atomic commit, or none if nothing changed."""
        from dlpipe.flows.cards import show_data
        from dlpipe.flows.data import find_labelled, ingest_lines, ingest_sources

        chosen = self.chosen()
        if self.retrain:
            self.ingest = find_labelled(chosen.data, chosen.registry.model)
        else:
            self.ingest = ingest_sources(chosen.data)
        self.data_version = self.ingest.table
        chosen.task.target.check_thresholds(chosen.gate, self.ingest.labels)
        show_data(self.ingest)
        print(*ingest_lines(self.ingest), sep="\n")
        self.next(self.tune)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @card(type="blank", id="trials")
    @step
    def tune(self):
        """Try settings from the search space; the best ones feed the training."""
        from dlpipe.bridge.trials import TrialRuns
        from dlpipe.cluster import join
        from dlpipe.flows.cards import show_trials
        from dlpipe.tuning import tune

        chosen = self.chosen()
        self.tuned_on = self.data_version
        with join(self.ray_address) as cluster:
            self.tuned = tune(
                self.tuned_on,
                task=chosen.task,
                space=chosen.search_space,
                settings=chosen.tuning,
                training=chosen.training,
                callbacks=[TrialRuns()],
                checkpoints=TaskCheckpoints(),
                cluster=cluster,
            )
        self.training = self.tuned.apply(chosen.training).resolve()
        show_trials(self.tuned)
        self.next(self.train)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @card(type="blank", id="training", refresh_interval=2)
    @step
    def train(self):
        """Fine-tune on the train split; the best epoch on the valid split is the model."""
        from dlpipe.flows.cards import LearningCurves
        from dlpipe.flows.registering import attempt_tags
        from dlpipe.training import fit

        self.trained_on = self.data_version
        fitted = fit(
            self.trained_on,
            task=self.chosen().task,
            settings=self.training,
            checkpoints=TaskCheckpoints(),
            on_epoch=LearningCurves().add,
        )
        self.trained_by = attempt_tags()
        self.trained_model, self.epoch_scores, self.best_epoch = fitted.model, fitted.epochs, fitted.best_epoch
        self.weights = fitted.model.digest
        print(f"weights {self.weights}, epoch {fitted.best_epoch}")
        self.next(self.evaluate)

    @card(type="blank")
    @step
    def evaluate(self):
        """Score model and baseline on the test split, with bootstrap intervals."""
        from dlpipe.evaluation import evaluate_baseline, evaluate_model
        from dlpipe.flows.cards import show_evaluation
        from dlpipe.task import find_task, open_predictor

        predictor, seed = open_predictor(self.trained_model), self.training.seed
        self.evaluated_on = self.data_version
        self.evaluation = evaluate_model(predictor, self.evaluated_on, seed=seed)
        self.baseline = evaluate_baseline(self.evaluated_on, beside=predictor, seed=seed)
        show_evaluation(self.evaluation, self.baseline, find_task(self.trained_model.task).target)
        print(f"model    {self.evaluation.line()}\nbaseline {self.baseline.line()}")
        self.next(self.register)

    @step
    def register(self):
        """Register the version with engines, pipeline and explainer; the gate decides about the champions."""
        from dlpipe.flows.registering import code_tags, register_judged

        done = register_judged(
            self.trained_model,
            rows=self.data_version,
            evaluation=self.evaluation,
            baseline=self.baseline,
            training=self.training,
            settings=self.chosen(),
            tags={**self.trained_by, **code_tags(self)},
        )
        self.engines, self.verdict, self.promotion = done.engines, done.verdict, done.promotion
        self.model_version, self.pipeline_version = done.classifier, done.pipeline
        self.explainer_version = done.explainer
        print(done)
        self.next(self.predict)

    @step
    def predict(self):
        """Score every row of the table version in one commit; nothing is added if that was done before."""
        from dlpipe.cluster import join
        from dlpipe.inference import load_predictor, score

        self.scored_by, self.scored_rows = self.model_version, self.data_version
        predictor, target = load_predictor(self.scored_by.uri), f"{self.scored_rows.path}_predictions"
        with join(self.ray_address) as cluster:
            self.predictions = score(
                predictor, self.scored_rows, model=self.scored_by, target=target, split=None, cluster=cluster
            )
        print(f"{self.predictions.table}: {self.predictions.new_rows} new of {self.predictions.rows} rows")
        self.next(self.explain)

    @card(type="blank")
    @step
    def explain(self):
        """Explain a sample of test rows and the worst mistakes, part by part: a text word by word."""
        from dlpipe.explain import explain_table
        from dlpipe.flows.cards import show_explanations, show_nothing
        from dlpipe.flows.explaining import why_not
        from dlpipe.task import open_predictor

        self.explained_by, self.explained_rows = self.model_version, self.data_version
        if reason := why_not(self.explained_by):
            self.explained = f"none: {reason}"
            show_nothing("Nothing to explain", reason)
            print(reason)
        else:
            self.explanations, self.explained = explain_table(
                open_predictor(self.trained_model),
                self.explained_rows,
                mistakes=[mistake.row_id for mistake in self.evaluation.mistakes],
                target=f"{self.explained_rows.path}_explanations",
                model=self.explained_by.uri,
                settings=self.chosen().explanation,
            )
            show_explanations(self.explanations, self.evaluation.mistakes)
            print(f"{self.explained}: {self.explanations.noun}s of {len(self.explanations.rows)} rows")
        self.next(self.end)

    @step
    def end(self):
        """Say where everything is."""
        self.summary = print_summary(
            data=f"{self.data_version}, {self.data_version.rows:,} rows",
            model=", ".join(self.evaluation.lines()[:2]),
            baseline=", ".join(self.baseline.lines()[:2]),
            registered=self.model_version.line(),
            pipeline=self.pipeline_version and self.pipeline_version.line(),
            explainer=self.explainer_version and self.explainer_version.line(),
            weights=self.weights,
            gate=f"{self.verdict.reason}; {self.promotion}",
            predictions=f"{self.predictions.table}, {self.predictions.new_rows:,} new rows",
            explanations=self.explained,
            cards=f"python flows/train_flow.py card view {current.run_id}/evaluate (or start, explain)",
            portal="dlpipe ui",
        )

    def check_options(self):
        """See that options and settings go together; called before a deployment, too."""
        from dlpipe.flows.data import check_named

        check_named(self.chosen().data, retrain=self.retrain)

    def check_inputs(self):
        """See that names, backbone, sources and tables are good; called before a run begins."""
        from dlpipe.flows.data import check_data
        from dlpipe.flows.registering import check_training

        chosen = self.chosen()
        check_training(chosen)
        check_data(chosen.data, retrain=self.retrain)


if __name__ == "__main__":
    TrainFlow()
