"""Waits until it is asked to stop."""

import signal

signal.signal(signal.SIGTERM, lambda *_: None)
signal.pause()
