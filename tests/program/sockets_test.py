"""Unix sockets: their mode, and whose they are."""

import os
import socket
import stat

import grpc
import pytest

from http2 import RawConnection
from support.api import Client, Code
from support.process import free_port, run


def test_the_mode_is_applied_and_the_socket_goes_with_the_process(serve, directory):
    path = directory / "s.sock"
    sidecar = serve(listen=[f"unix://{path}?mode=0660"])
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with Client(f"unix:{path}") as client:
        client.create()
    assert sidecar.stop() == 0
    assert not path.exists()


def test_a_stale_socket_is_replaced(serve, directory):
    path = directory / "s.sock"
    crashed = serve(listen=[f"unix://{path}"])
    crashed.process.kill()
    crashed.wait()
    assert path.exists(), "this test needs the socket that a killed process leaves"
    serve(listen=[f"unix://{path}"])
    with Client(f"unix:{path}") as client:
        client.create()


def test_a_live_socket_is_not_stolen(serve, directory, binary):
    path = directory / "s.sock"
    serve(listen=[f"unix://{path}"])
    second = run(binary, "serve", "--admin-listen", "off", "--listen", f"unix://{path}")
    assert second.returncode != 0
    assert str(path) in second.stderr
    with Client(f"unix:{path}") as client:
        client.create()


def test_the_socket_of_a_successor_stays(serve, directory):
    path = directory / "s.sock"
    first = serve(listen=[f"unix://{path}"])
    path.unlink()
    serve(listen=[f"unix://{path}"])
    assert first.stop() == 0
    with Client(f"unix:{path}") as client:
        client.create()


def test_each_listener_has_places_of_its_own(serve, directory):
    """A connection to one, or none, keeps nobody from another."""
    port = free_port()
    sidecar = serve("--max-connections", "1", listen=[f"tcp://127.0.0.1:{port}", f"unix://{directory}/s.sock"])
    with RawConnection(port), Client(f"unix:{directory}/s.sock") as client:
        client.create()
    with Client(f"127.0.0.1:{port}") as client:
        client.create()
    assert sidecar.stop() == 0


def test_a_file_that_is_no_socket_is_left_alone(directory, binary):
    path = directory / "precious.txt"
    path.write_text("data")
    refused = run(binary, "serve", "--admin-listen", "off", "--listen", f"unix://{path}")
    assert refused.returncode != 0
    assert str(path) in refused.stderr
    assert path.read_text() == "data"


def test_a_socket_is_given_to_a_group(serve, directory):
    path = directory / "s.sock"
    serve(listen=[f"unix://{path}?mode=0660&group={os.getgid()}"])
    assert path.stat().st_gid == os.getgid()
    with Client(f"unix:{path}") as client:
        client.create()


def test_only_the_processes_that_are_named_may_connect(serve, directory):
    (mine, theirs) = (os.geteuid(), os.geteuid() + 1)
    paths = [directory / name for name in ("by-user", "by-group", "strangers")]
    sidecar = serve(
        listen=[
            f"unix://{paths[0]}?uids={theirs},{mine}",
            f"unix://{paths[1]}?uids={theirs}&gids={os.getegid()}",
            f"unix://{paths[2]}?uids={theirs}",
        ]
    )
    for path in paths[:2]:
        with Client(f"unix:{path}") as client:
            client.create()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(paths[2]))
        stranger.settimeout(30)
        assert stranger.recv(1) == b"", "it was not hung up on"
    assert f'"uid":{mine}' in sidecar.output()
    refused = [line for line in sidecar.http("/metrics")[1].splitlines() if line.startswith("session_sidecar_connections_refused")]
    assert refused == ["session_sidecar_connections_refused_total 1"]


@pytest.mark.parametrize("target", ["127.0.0.1:{port}", "unix:{path}"])
@pytest.mark.parametrize("authority", ["%2Frun%2Fs.sock", "/run/s.sock", "outbound|50151||a/b", "a b"])
def test_an_invalid_authority_is_repaired_at_every_call(serve, target, authority):
    sidecar = serve()
    with Client(target.format(port=sidecar.port, path=sidecar.socket_path), **{"grpc.default_authority": authority}) as client:
        for _ in range(20):
            client.create()


def test_an_invalid_authority_is_refused_where_that_is_asked_for(serve, directory):
    path = directory / "s.sock"
    serve(listen=[f"unix://{path}?authority=strict"])
    with Client(f"unix:{path}") as client, pytest.raises(grpc.RpcError) as refused:
        client.create()
    assert "PROTOCOL_ERROR" in refused.value.details() or refused.value.code() == Code.INTERNAL
    with Client(f"unix:{path}", **{"grpc.default_authority": "localhost"}) as client:
        client.create()
