"""Registered models behind an address: what other people's programs ask.

served     one version, loaded and ready
batching   rows of requests that wait, computed together
following  which version a name and an alias mean now: polled, loaded beside the old one, checked, swapped
settings   the section ``[serving]``
"""
