"""A flow whose failures are caught: one task of a foreach, and one that had two attempts."""

from metaflow import FlowSpec, catch, current, retry, step


class CatchFlow(FlowSpec):
    """Divide by some numbers, one of them zero."""

    @step
    def start(self):
        self.numbers = [2, 0]
        self.next(self.divide, foreach="numbers")

    @catch(var="problem", print_exception=False)
    @step
    def divide(self):
        self.number = self.input
        self.share = 1 / self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.problems = [type(one.problem.exception).__name__ if one.problem else "" for one in inputs]
        self.texts = [str(one.problem) for one in inputs]
        self.next(self.hopeless)

    @catch(var="despair")
    @retry(times=1, minutes_between_retries=0)
    @step
    def hopeless(self):
        self.tried = current.retry_count
        print("attempt", current.retry_count)
        raise LookupError("nothing here")
        self.next(self.end)

    @step
    def end(self):
        self.caught = repr(self.despair.exception), self.tried if hasattr(self, "tried") else "lost"


if __name__ == "__main__":
    CatchFlow()
