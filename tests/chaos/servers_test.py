"""The servers and their faults, with the real programs."""

import time

import pytest

from chaos.servers import Cluster, Sentinels, Server, Single


def stands(server, seconds):
    """Whether its clock is so far from the machine's."""
    before = time.time()
    shown = server.clock()
    return before + seconds <= shown <= time.time() + seconds


@pytest.mark.parametrize("engine", ["redis", "valkey"])
def test_what_was_written_outlives_kill_9_and_the_clock_steps_both_ways(tmp_path, engine):
    store = Single(tmp_path, engine)
    (server,) = store.primaries
    try:
        server.call("SET", "key", "value")
        server.kill()
        server.start()
        assert server.call("GET", "key") == "value"
        assert stands(server, 0)
        server.step_clock(60)
        assert stands(server, 60)
        before = int(server.call("TIME")[0])
        in_a_script = int(server.call("EVAL", "return redis.call('TIME')[1]", 0))
        assert before <= in_a_script <= int(server.call("TIME")[0])
        server.step_clock(-90)
        assert stands(server, -30)
    finally:
        store.close()


def promoted(servers, since):
    """Which of the servers became a primary after a moment, by their own word."""
    return [server for server in servers if any(since < at < time.monotonic() for at in server.promotions())]


@pytest.mark.parametrize("engine", ["redis", "valkey"])
def test_sentinels_name_another_primary(tmp_path, engine):
    store = Sentinels(tmp_path, engine)
    try:
        (first,) = store.primaries
        first.call("SET", "key", "value")
        first.call("WAIT", 2, 1000)
        began = time.monotonic()
        first.kill()
        store.wait_for_another([first])
        (second,) = store.primaries
        assert second.call("GET", "key") == "value"
        assert promoted(store.servers, began) == [second]
        first.start()
    finally:
        store.close()


@pytest.mark.parametrize("engine", ["redis", "valkey"])
def test_a_cluster_fails_over_and_moves_a_slot(tmp_path, engine):
    store = Cluster(tmp_path, engine)
    try:
        first, second, third = store.primaries
        slot = int(first.call("CLUSTER", "KEYSLOT", "key"))
        owner = next(server for server in store.primaries if slot in store.slots(server))
        other = next(server for server in store.primaries if server is not owner)
        owner.call("SET", "key", "value")
        store.migrate(slot, owner, other)
        assert other.call("GET", "key") == "value"
        victim = owner
        victim.call("WAIT", 1, 1000)
        began = time.monotonic()
        victim.kill()
        store.wait_for_another(victim)
        assert len(promoted(store.servers, began)) == 1
        victim.start()
    finally:
        store.close()


def test_a_server_that_stands_still_answers_again(tmp_path):
    server = Server(tmp_path)
    try:
        server.pause()
        with pytest.raises(OSError):
            server.call("PING", patience=0.2)
        server.resume()
        assert server.call("PING") == "PONG"
    finally:
        server.kill()
