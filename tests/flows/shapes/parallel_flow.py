"""A flow with a gang of tasks that run at the same time and know of each other."""

from metaflow import FlowSpec, current, parallel, step


class ParallelFlow(FlowSpec):
    """Count the gang."""

    @step
    def start(self):
        self.next(self.work, num_parallel=2)

    @parallel
    @step
    def work(self):
        self.node = current.parallel.node_index
        self.nodes = current.parallel.num_nodes
        self.next(self.join)

    @step
    def join(self, inputs):
        self.seen = sorted(one.node for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParallelFlow()
