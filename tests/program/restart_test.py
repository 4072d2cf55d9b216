"""What outlives a process in memory mode: refs, if there is a key file; nothing else, and everybody is told so."""

import socket

import grpc
import pytest

from support.api import Client, Code, reason, v1
from support.process import free_port, run

ID = "an-id-of-at-least-16-bytes"


@pytest.mark.parametrize("with_key", [False, True])
def test_a_restart_loses_sessions_and_says_so(serve, directory, with_key):
    key = directory / "key"
    key.write_bytes(bytes(range(32)))
    arguments = ["--key-file", str(key)] * with_key
    refs, token = [], ""
    for _ in range(2):
        sidecar = serve(*arguments)
        with Client(sidecar.tcp) as client:
            checked = client.sessions.Check(v1.CheckRequest(session_id=ID)).session
            assert checked.status.state == v1.SESSION_STATE_UNKNOWN
            if token:
                with pytest.raises(grpc.RpcError) as refused:
                    next(client.watch(resume_token=token))
                assert refused.value.code() == Code.OUT_OF_RANGE, "a token of an earlier process is told from garbage"
                assert reason(refused.value) == "RESUME_TOKEN_EXPIRED"
            token = next(client.watch()).resume_token
            refs.append(client.create(ID).session.status.session_ref)
        sidecar.stop()
    assert (refs[0] == refs[1]) == with_key


def test_a_short_key_is_refused(binary, directory):
    key = directory / "key"
    key.write_bytes(b"short")
    refused = run(binary, "check-config", "--key-file", str(key))
    assert refused.returncode == 64
    assert "32" in refused.stderr and str(key) in refused.stderr


def test_a_port_that_is_taken_is_named(serve, binary):
    sidecar = serve()
    for arguments in (
        ["--listen", f"tcp://{sidecar.tcp}", "--admin-listen", "off"],
        ["--listen", "tcp://127.0.0.1:0", "--admin-listen", f"127.0.0.1:{sidecar.admin_port}"],
    ):
        refused = run(binary, "serve", *arguments)
        assert refused.returncode not in (0, 64), "the configuration is good, the machine is not"
        taken = sidecar.admin_port if "127.0.0.1:0" in arguments[1] else sidecar.port
        assert str(taken) in refused.stderr + refused.stdout


def test_a_port_of_an_outgoing_connection_is_told_as_one(binary):
    """The usual ports lie where Linux takes the local ports of connections from."""
    taken = free_port()
    with socket.create_server(("127.0.0.1", 0)) as peer, socket.socket() as connection:
        connection.bind(("127.0.0.1", taken))
        connection.connect(peer.getsockname())
        refused = run(binary, "serve", "--listen", f"tcp://127.0.0.1:{taken}", "--admin-listen", "off")
    assert refused.returncode not in (0, 64)
    told = refused.stderr + refused.stdout
    assert f"--listen tcp://127.0.0.1:{taken}" in told and "outgoing connection" in told and "reserve" in told
