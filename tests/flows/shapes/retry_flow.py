"""A flow that works at the second try: after an exception, and after its process is gone without a word.

Then time runs out in two steps: in one for good, which is caught, in the other in the first attempt only.
"""

import os
import time

from metaflow import FlowSpec, catch, current, retry, step, timeout


class RetryFlow(FlowSpec):
    """Try again, and be too slow."""

    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        self.before = current.retry_count
        if current.retry_count == 0:
            raise ValueError("the first attempt always fails")
        self.after = current.retry_count
        self.next(self.vanish)

    @retry(times=2, minutes_between_retries=0)
    @step
    def vanish(self):
        if current.retry_count == 0:
            os._exit(7)
        self.attempt = current.retry_count
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
    RetryFlow()
