"""A flow that works at the second try: after an exception, and after its process is gone without a word."""

import os

from metaflow import FlowSpec, current, retry, step


class RetryFlow(FlowSpec):
    """Try again."""

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
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    RetryFlow()
