"""A channel belongs to one process: prefork servers do not hang. And a program ends, whatever it has left open."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from helpers import PATIENT
from support.process import PATIENCE, eventually

from session_sidecar import Sidecar

SOURCE = str(Path(__file__).resolve().parents[1] / "src")


PREFORK = textwrap.dedent("""
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from session_sidecar import Sidecar

    # As gunicorn with --preload: the application is imported, with its client, before the workers are forked.
    sidecar = Sidecar(sys.argv[2])
    session_id = sys.argv[3]
    workers = []
    for number in range(4):
        if (worker := os.fork()) == 0:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            for _ in range(50):
                sidecar.touch(session_id)
            assert sidecar.with_options(deadline=__import__("datetime").timedelta(seconds=20)).touch(session_id).allowed
            os.write(1, b"served\\n")
            while True:
                signal.pause()
        workers.append(worker)
    sys.stdin.readline()
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    print(codes, flush=True)
""")


@pytest.mark.parametrize("transport", ["tcp", "uds"])
def test_a_prefork_server_starts_serves_and_stops(process, sidecar, transport):
    """Workers leave through Python's own end, with whatever gRPC does there."""
    session_id = sidecar.create().session_id
    server = subprocess.Popen([sys.executable, "-c", PREFORK, SOURCE, getattr(process, transport), session_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    killer = threading.Timer(PATIENCE, os.killpg, (server.pid, signal.SIGKILL))
    killer.start()
    try:
        assert [server.stdout.readline() for _ in range(4)] == ["served\n"] * 4
        out, _ = server.communicate("stop\n")
        assert out == "[0, 0, 0, 0]\n"
        assert server.returncode == 0
    finally:
        killer.cancel()
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_a_program_ends_beside_an_open_watch_and_hold(process):
    program = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        from session_sidecar import Sidecar
        sidecar = Sidecar(sys.argv[2])
        patient = sidecar.with_options(deadline=__import__("datetime").timedelta(seconds=20))
        hold = patient.holding(patient.create().session_id).__enter__()
        watch = patient.watch(everything=True)
        next(watch)
        raise SystemExit(7)
    """)
    ended = subprocess.run([sys.executable, "-c", program, SOURCE, process.tcp], timeout=PATIENCE, check=False)
    assert ended.returncode == 7
    eventually(lambda: process.metric("watchers") == 0, "the watch is gone")


def test_a_watch_that_is_dropped_is_closed(process):
    """Without `close`, and without waiting for a garbage collection."""
    with Sidecar(process.tcp, deadline=PATIENT) as sidecar:
        for event in sidecar.watch(everything=True):
            assert process.metric("watchers") == 1, event
            break
        eventually(lambda: process.metric("watchers") == 0, "the watch is gone")
