"""A function over items on all nodes of a cluster, with Ray Data."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.errors import ClusterUnavailable, DlpipeError

TAKEN_OVER = ("DLPIPE_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "OMP_WAIT_")
IN_FLIGHT = 2  # so that a worker need not wait for its next item
ATTEMPTS = 3  # of an item whose worker died, with its node or without


@dataclass(frozen=True)
class Surroundings:
    """What relative paths and settings from the environment depend on."""

    folder: str
    variables: Mapping[str, str]

    @classmethod
    def here(cls) -> Surroundings:
        """Return those of this process."""
        variables = {name: value for name, value in os.environ.items() if name.startswith(TAKEN_OVER)}
        return cls(os.getcwd(), variables)

    def enter(self) -> None:
        """Make them those of this process, as far as this machine has the folder."""
        os.environ.update(self.variables)
        if os.path.isdir(self.folder):
            os.chdir(self.folder)


@dataclass(frozen=True)
class Outcome:
    """What a call returned, or what it raised and where."""

    value: Any = None
    error: BaseException | None = None
    trace: str = ""

    @classmethod
    def of(cls, function: Callable[..., Any], *args: Any) -> Outcome:
        """Call ``function`` and return how that went."""
        try:
            return cls(function(*args))
        except Exception as error:
            return cls(error=error, trace=traceback.format_exc())

    def pack(self) -> bytes:
        """Return this as bytes; an error that cannot travel becomes one that can."""
        from ray import cloudpickle

        try:
            packed: bytes = cloudpickle.dumps(self)
            cloudpickle.loads(packed)
        except Exception:
            if self.error is None:
                raise
            plain = RuntimeError(f"{type(self.error).__name__}: {self.error}")
            packed = cloudpickle.dumps(Outcome(error=plain, trace=self.trace))
        return packed

    def get(self) -> Any:
        """Return the value, or raise the error; one that nobody expected has a note of where it was raised."""
        if self.error is not None:
            if not isinstance(self.error, DlpipeError):
                self.error.add_note(f"On a node of the Ray cluster:\n{self.trace}")
            raise self.error
        return self.value


def map_items(
    opener: Callable[[], Callable[[Any], Any]], items: Sequence[Any], *, cores: int, workers: int
) -> Iterator[Any]:
    """Yield what the callables that ``opener`` makes on ``workers`` workers return for ``items``, as they come.

    Parameters
    ----------
    opener : callable
        Called once in each worker; returns what is called with an item.
    items : sequence of object
        Small things; each is shipped with its number.
    cores : int
        Cores, and torch threads, of a worker.
    workers : int
        So many at a time.
    """
    import ray
    from ray import cloudpickle

    if not items:
        return
    _quiet_ray_data()
    shipped = [ray.put(cloudpickle.dumps(opener)), _start_counter()]
    rows = [{"number": number, "item": cloudpickle.dumps(item)} for number, item in enumerate(items)]
    outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(shipped, Surroundings.here(), cores),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=IN_FLIGHT),
        num_cpus=cores,
    )
    try:
        # without prefetching, a result is not held back until the next one is there
        for batch in outcomes.iter_batches(batch_size=None, prefetch_batches=0):
            for outcome in batch["outcome"]:
                yield cloudpickle.loads(outcome).get()
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise ClusterUnavailable(f"The work on the Ray cluster ended: {last}") from error


class Worker:
    """What Ray Data runs in an actor: opens once, then answers item by item."""

    def __init__(self, shipped: list[Any], surroundings: Surroundings, cores: int) -> None:
        import ray
        from ray import cloudpickle

        opener, self._starts = shipped
        surroundings.enter()
        os.environ.update(OMP_NUM_THREADS=str(cores), DLPIPE_CORES=str(cores))
        self._opened = Outcome.of(lambda: cloudpickle.loads(ray.get(opener))())
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(cores)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Return the outcome for the one item of ``batch``."""
        (number,), (item,) = batch["number"], batch["item"]
        return {"outcome": [self._outcome(int(number), item).pack()]}

    def _outcome(self, number: int, item: bytes) -> Outcome:
        import ray
        from ray import cloudpickle

        if self._opened.error is not None:
            return self._opened
        if ray.get(self._starts.begin.remote(number)) > ATTEMPTS:
            problem = f"The worker died {ATTEMPTS} times over item {number}. Look for lack of memory on the nodes."
            return Outcome(error=ClusterUnavailable(problem))
        return Outcome.of(lambda: self._opened.value(cloudpickle.loads(item)))


class ItemStarts:
    """Counts how often an item was begun: Ray would try one that kills its worker for ever."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Count one more, and return how many that makes."""
        self._begun[number] += 1
        return self._begun[number]


def _start_counter() -> Any:
    """Return an actor of ``ItemStarts`` beside this process, so that it lives as long."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(ItemStarts).remote()


def _quiet_ray_data() -> None:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
