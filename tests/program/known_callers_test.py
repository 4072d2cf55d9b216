"""Callers whom the policy file knows by certificate, token or user, whichever listener they come by (G17)."""

import json
import os
from pathlib import Path

import grpc
import pytest
from support.api import Client, Code, admin_v1, reason, v1
from support.certificates import Authority
from support.process import eventually, free_port, run

SHOP = "spiffe://cluster.local/ns/shop/sa/shop"
TOKEN = "dG9rZW4tb2YtdGhlLWRlc2s="
OTHER = "b3RoZXItb3RoZXItb3RoZXI="
NEXT = "dGhlLW5leHQtdG9rZW4tcGxlYXNl"
POLICY = '[policy.default]\nidle_timeout = "15m"\n'


def caller(known_by: str, *verbs: str, tenants: tuple[str, ...] = ("",)) -> str:
    """A table of the policy file."""
    quoted = [", ".join(f'"{word}"' for word in words) for words in (verbs, tenants)]
    return f"[[callers]]\n{known_by}\nverbs = [{quoted[0]}]\ntenants = [{quoted[1]}]\n"


@pytest.fixture
def policy(directory) -> Path:
    return directory / "policy.toml"


def create(client: Client, tenant: str = "", token: str | None = None):
    metadata = [("authorization", f"Bearer {token}")] if token else []
    return client.sessions.Create(v1.CreateRequest(tenant=tenant), metadata=metadata, timeout=10)


def stats(client: Client, token: str | None = None):
    metadata = [("authorization", f"Bearer {token}")] if token else []
    return client.admin.GetStats(admin_v1.GetStatsRequest(), metadata=metadata, timeout=10)


def refused(call) -> Code:
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert TOKEN not in error.value.details() and NEXT not in error.value.details()
    if error.value.code() == Code.PERMISSION_DENIED:
        assert reason(error.value) == "CALLER_NOT_ALLOWED"
    return error.value.code()


def test_by_the_names_of_a_certificate(serve, directory, policy):
    authority = Authority(directory / "authority")
    server, key = authority.sign("server")
    policy.write_text(
        POLICY + caller(f'certificate = "{SHOP}"', "use", "issue", tenants=("shop",)) + caller('certificate = "desk"', "admin") + caller('certificate = "b.example"', "issue", tenants=("b",))
    )
    port = free_port()
    query = f"tls-cert-file={server}&tls-key-file={key}&client-ca-file={authority.certificate}&verbs=none"
    serve("--policy-file", str(policy), listen=[f"tcp://127.0.0.1:{port}?{query}"])

    def dial(name: str, names: str | None) -> Client:
        certificate, own_key = (path.read_bytes() for path in authority.sign(name, names=names))
        return Client(f"127.0.0.1:{port}", credentials=grpc.ssl_channel_credentials(authority.certificate.read_bytes(), own_key, certificate))

    with dial("shop", f"URI:{SHOP}") as shop:
        create(shop, "shop")
        # It may do what its entry says, and nothing else.
        assert refused(lambda: create(shop)) == Code.PERMISSION_DENIED
        assert refused(lambda: stats(shop)) == Code.PERMISSION_DENIED
    with dial("any", "DNS:a.example,DNS:b.example") as second:
        create(second, "b")
    with dial("desk", None) as desk:
        stats(desk)
        assert refused(lambda: create(desk)) == Code.PERMISSION_DENIED
    # A common name says nothing where the authority has vouched for other names.
    with dial("desk", "DNS:other.example") as other:
        assert refused(lambda: stats(other)) == Code.PERMISSION_DENIED
        assert refused(lambda: create(other)) == Code.PERMISSION_DENIED


def test_by_a_token_and_by_the_user_of_a_process(serve, directory, policy):
    (token, path) = (directory / "token", directory / "s.sock")
    token.write_text(TOKEN)
    policy.write_text(POLICY + caller(f'token_file = "{token}"', "admin", "issue", tenants=("desk", "")) + caller(f"uid = {os.geteuid()}", "issue", tenants=("mine",)))
    port = free_port()
    sidecar = serve("--policy-file", str(policy), listen=[f"tcp://127.0.0.1:{port}?verbs=use", f"unix://{path}"])
    with Client(f"127.0.0.1:{port}") as client:
        assert refused(lambda: create(client)) == Code.PERMISSION_DENIED
        create(client, token=TOKEN)
        stats(client, token=TOKEN)
        # A token that nobody knows may be the application's own business: the listener decides.
        assert refused(lambda: create(client, token=NEXT)) == Code.PERMISSION_DENIED
    with Client(f"unix:{path}") as client:
        create(client, "mine")
        assert refused(lambda: create(client)) == Code.PERMISSION_DENIED
        # Of two that fit, the first in the file.
        create(client, "desk", token=TOKEN)
        assert refused(lambda: create(client, "mine", token=TOKEN)) == Code.PERMISSION_DENIED
    assert TOKEN not in sidecar.output()


def test_the_audit_log_says_by_what_an_administrator_is_known(serve, directory, policy):
    (own, desk, log, path) = (directory / "own", directory / "desk", directory / "audit.jsonl", directory / "s.sock")
    own.write_text(NEXT)
    desk.write_text(TOKEN)
    policy.write_text(POLICY + caller(f'token_file = "{desk}"', "admin") + caller(f"uid = {os.geteuid()}", "admin"))
    port = free_port()
    sidecar = serve("--policy-file", str(policy), "--audit-log", str(log), listen=[f"tcp://127.0.0.1:{port}?token-file={own}&verbs=admin", f"unix://{path}"])
    with Client(f"127.0.0.1:{port}") as client, Client(f"unix:{path}") as here:
        stats(client, token=TOKEN)
        stats(client, token=NEXT)
        stats(here)
        assert refused(lambda: stats(client)) == Code.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError):
            unreadable = client.channel.unary_unary("/sessionsidecar.v1.SessionAdminService/GetStats", request_serializer=bytes, response_deserializer=bytes)
            unreadable(b"\xff", metadata=[("authorization", f"Bearer {TOKEN}")], timeout=10)
    assert sidecar.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["method"], line.get("known_by"), line["result"]) for line in lines] == [
        ("GetStats", f"token_file {desk}", "OK"),
        ("GetStats", f"listener tcp://127.0.0.1:{port}", "OK"),
        ("GetStats", f"uid {os.geteuid()}", "OK"),
        # Nobody knows what this one wanted. Of strangers, who could fill the log, there is nothing.
        ("GetStats", f"token_file {desk}", "INVALID_ARGUMENT"),
    ]


def test_a_file_that_hangs_holds_up_no_other(serve, directory, policy):
    """As on a file system that is away: here a pipe that nobody writes to."""
    (own, desk) = (directory / "own", directory / "desk")
    own.write_text(NEXT)
    desk.write_text(TOKEN)
    policy.write_text(POLICY + caller(f'token_file = "{desk}"', "admin"))
    port = free_port()
    sidecar = serve("--policy-file", str(policy), listen=[f"tcp://127.0.0.1:{port}?token-file={own}"])
    os.mkfifo(directory / "pipe")
    (directory / "pipe").rename(desk)
    with Client(f"127.0.0.1:{port}") as client:
        for waits in (desk, policy):  # the policy file names it
            eventually(lambda waits=waits: f'stays in force","files":"{waits}"' in sidecar.output(), "it is told", patience=60)
        own.write_text(f"{NEXT}\n{OTHER}")
        eventually(lambda: sidecar.metrics("listener_file_reloads_total")['{outcome="applied"}'] == 1, "the others are followed")
        create(client, token=OTHER)
        stats(client, token=TOKEN)
    assert sidecar.stop() == 0


def test_a_known_token_is_as_good_as_the_listeners_own(serve, directory, policy):
    (own, desk) = (directory / "own", directory / "desk")
    own.write_text(NEXT)
    desk.write_text(TOKEN)
    policy.write_text(POLICY + caller(f'token_file = "{desk}"', "admin"))
    port = free_port()
    serve("--policy-file", str(policy), listen=[f"tcp://127.0.0.1:{port}?token-file={own}"])
    with Client(f"127.0.0.1:{port}") as client:
        create(client, token=NEXT)
        stats(client, token=TOKEN)
        assert refused(lambda: stats(client, token=NEXT)) == Code.PERMISSION_DENIED
        assert refused(lambda: create(client, token=TOKEN)) == Code.PERMISSION_DENIED
        assert refused(lambda: stats(client)) == Code.UNAUTHENTICATED


def test_what_changes_is_followed_and_a_watch_ends_with_its_rights(serve, directory, policy):
    token = directory / "token"
    token.write_text(TOKEN)
    known = POLICY + caller(f'token_file = "{token}"', "watch-all", "issue")
    policy.write_text(known)
    port = free_port()
    sidecar = serve("--policy-file", str(policy), listen=[f"tcp://127.0.0.1:{port}?verbs=use"])

    def watch(token: str):
        request = v1.WatchExpiryRequest(scope=v1.WatchScope(whole_tenant=True), include_initial_state=True)
        stream = client.sessions.WatchExpiry(request, metadata=[("authorization", f"Bearer {token}")], timeout=120)
        assert next(stream).HasField("snapshot_end")
        return stream

    def ends(stream) -> tuple[Code, str]:
        with pytest.raises(grpc.RpcError) as error:
            for message in stream:
                assert message.HasField("heartbeat")
        return error.value.code(), reason(error.value)

    with Client(f"127.0.0.1:{port}") as client:
        first = watch(TOKEN)
        # Both are valid, and the watch goes on.
        token.write_text(f"{TOKEN}\n{NEXT}\n")
        eventually(lambda: "files of a listener changed" in sidecar.output(), "the second token is valid")
        second = watch(NEXT)
        create(client, token=TOKEN)
        token.write_text(NEXT)
        assert ends(first) == (Code.UNAVAILABLE, "CALLER_CHANGED")
        assert refused(lambda: create(client, token=TOKEN)) == Code.PERMISSION_DENIED
        create(client, token=NEXT)
        # What is bad changes nothing, of the policies either.
        policy.write_text(known.replace("15m", "10m") + caller(f'token_file = "{directory}/none"', "admin"))
        eventually(lambda: f"callers[1]: {directory}/none cannot be read" in sidecar.output(), "the file is refused")
        create(client, token=NEXT)
        policy.write_text(POLICY)
        assert ends(second) == (Code.UNAVAILABLE, "CALLER_CHANGED")
        assert refused(lambda: create(client, token=NEXT)) == Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (caller("uid = 7", "everything"), ["callers[0]", "verbs", "no verb group"]),
        (caller("uid = 7"), ["callers[0]", "verbs is empty"]),
        ("[[callers]]\nuid = 7\n", ["verbs"]),
        (caller("", "use"), ["callers[0]", "certificate, token_file and uid"]),
        (caller('uid = 7\ncertificate = "x"', "use"), ["callers[0]", "certificate, token_file and uid"]),
        (caller('certificate = ""', "use"), ["callers[0]", "1 to 1024 bytes"]),
        (caller('token_file = "token"', "use"), ["callers[0]", "absolute path"]),
        (caller("uid = -1", "use"), ["uid = -1"]),
        (caller("uid = 7", "use", tenants=("a b",)), ["callers[0]", "visible ASCII"]),
        (caller("uid = 7", "use", tenants=()), ["callers[0]", "tenants is empty"]),
        (caller("uid = 7", "use") + caller("uid = 8", "use") + caller("uid = 7", "end"), ["callers[2]", "callers[0] is known by the same"]),
        (caller('token_file = "/none/such"', "use"), ["callers[0]", "/none/such cannot be read"]),
        ("".join(caller(f"uid = {uid}", "use") for uid in range(257)), ["257 callers", "256"]),
        (caller("uid = 7\nuser = 8", "use"), ["user", "uid"]),
    ],
)
def test_a_bad_table_is_refused(binary, policy, tables, told):
    policy.write_text(POLICY + tables)
    for command in ("check-config", "serve"):
        done = run(binary, command, "--admin-listen", "off", "--listen", f"tcp://127.0.0.1:{free_port()}", "--policy-file", str(policy))
        assert done.returncode == 64
        assert all(word in done.stderr for word in told), done.stderr
