"""A channel belongs to one process. Forks, as prefork servers make them, neither hang nor share a connection."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from helpers import PATIENT
from support.process import PATIENCE, eventually

from session_sidecar import Sidecar

SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def children(count, work):
    """Runs `work` in so many forked processes, and answers their exit codes; one that hangs is killed and told as -9."""
    born = []
    for _ in range(count):
        if (child := os.fork()) == 0:
            code = 1
            try:
                code = 0 if work() else 2
            finally:
                os._exit(code)
        born.append(child)
    codes = []
    deadline = time.monotonic() + PATIENCE
    for child in born:
        done, status = os.waitpid(child, os.WNOHANG)
        while not done and time.monotonic() < deadline:
            time.sleep(0.01)
            done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        codes.append(os.waitstatus_to_exitcode(status))
    return codes


@pytest.mark.parametrize("used_before", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("transport", ["tcp", "uds"])
def test_four_workers_each_have_a_connection(process, transport, used_before):
    with Sidecar(getattr(process, transport), deadline=PATIENT) as shared:
        with Sidecar(process.tcp, deadline=PATIENT) as other:
            session_id = other.create().session_id
        if used_before:
            assert shared.touch(session_id).allowed
        assert children(4, lambda: all(shared.touch(session_id).allowed for _ in range(20))) == [0, 0, 0, 0]
        assert shared.touch(session_id).allowed, "the parent goes on"


def test_a_fork_in_the_middle_of_calls_of_other_threads(process):
    with Sidecar(process.tcp, deadline=PATIENT) as shared:
        session_id = shared.create().session_id
        stop, failed = threading.Event(), []

        def work():
            while not stop.is_set():
                if not shared.touch(session_id).allowed:
                    failed.append(1)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                assert children(4, lambda: shared.touch(session_id).allowed) == [0, 0, 0, 0]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failed


def test_a_fork_beside_an_open_watch(process):
    with Sidecar(process.tcp, deadline=PATIENT) as shared, shared.watch(subject="ada") as watch:
        next(watch)
        created = shared.create(subject="ada")
        assert children(2, lambda: shared.touch(created.session_id).allowed) == [0, 0]
        shared.end(created.session_id)
        assert next(watch).session.session_ref == created.session.status.session_ref


PREFORK = textwrap.dedent("""
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from session_sidecar import Sidecar

    # As gunicorn with --preload: the application is imported, and has even talked, before the workers are forked.
    sidecar = Sidecar(sys.argv[2])
    session_id = sidecar.with_options(deadline=__import__("datetime").timedelta(seconds=20)).create().session_id
    workers = []
    for number in range(4):
        if (worker := os.fork()) == 0:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            for _ in range(50):
                sidecar.touch(session_id)
            assert sidecar.with_options(deadline=__import__("datetime").timedelta(seconds=20)).touch(session_id).allowed
            print("served", flush=True)
            while True:
                signal.pause()
        workers.append(worker)
    sys.stdin.readline()
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    print(codes, flush=True)
""")


def test_a_prefork_server_starts_serves_and_stops(process):
    """Workers leave through Python's own end, with whatever gRPC does there."""
    server = subprocess.Popen([sys.executable, "-c", PREFORK, SOURCE, process.tcp], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
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
