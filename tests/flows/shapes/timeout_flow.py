"""A flow in which time runs out: once for good and caught, once for the first attempt only."""

import time

from metaflow import FlowSpec, catch, current, retry, step, timeout


class TimeoutFlow(FlowSpec):
    """Be too slow."""

    @step
    def start(self):
        self.next(self.slow, self.slow_at_first)

    @catch(var="late", print_exception=False)
    @timeout(seconds=1)
    @step
    def slow(self):
        self.begun = True
        time.sleep(30)
        self.next(self.join)

    @retry(times=1, minutes_between_retries=0)
    @timeout(seconds=1)
    @step
    def slow_at_first(self):
        if current.retry_count == 0:
            time.sleep(30)
        self.attempt = current.retry_count
        self.next(self.join)

    @step
    def join(self, inputs):
        self.what = type(inputs.slow.late.exception).__name__
        self.attempt = inputs.slow_at_first.attempt
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TimeoutFlow()
