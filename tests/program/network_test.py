"""Listeners for other machines: TLS, client certificates, bearer tokens, and what changes of their files do."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

import http2
from support.api import Client, Code, reason, v1
from support.certificates import Authority
from support.process import eventually, free_port, run

TOKEN = "dG9rZW4tb2YtdGhlLXRlc3Rz"
NEXT = "dGhlLW5leHQtdG9rZW4tcGxlYXNl"


@pytest.fixture
def authority(directory) -> Authority:
    return Authority(directory / "authority")


@pytest.fixture
def place(authority, directory):
    """The server's files, where they are changed as a Secret is: by names that point elsewhere from one instant to the next."""
    folder = directory / "tls"
    folder.mkdir()
    for source, name in zip((*authority.sign("server"), authority.certificate), ("tls.crt", "tls.key", "ca.crt"), strict=True):
        shutil.copy(source, folder / name)
    return folder


def tls(folder: Path, *options: str) -> tuple[int, str]:
    """A port, and a listener there that serves TLS."""
    port = free_port()
    query = "&".join([f"tls-cert-file={folder}/tls.crt", f"tls-key-file={folder}/tls.key", *options])
    return port, f"tcp://127.0.0.1:{port}?{query}"


def dial(port: int, authority: Authority, pair: tuple[Path, Path] | None = None) -> Client:
    """A client that trusts the authority, and has a certificate if one is given."""
    certificate, key = (path.read_bytes() for path in pair) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
    return Client(f"127.0.0.1:{port}", credentials=credentials)


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def test_tls_is_served_and_clear_text_refused(serve, authority, place):
    port, listen = tls(place)
    sidecar = serve(listen=[listen])
    with dial(port, authority) as client:
        client.create()
    with Client(f"127.0.0.1:{port}") as plain:
        assert refused(plain.create).code() == Code.UNAVAILABLE
    eventually(lambda: sidecar.metrics("tls_handshakes_failed_total")[""] > 0, "the failed handshake is counted")
    ends = datetime.strptime(authority.not_after(place / "tls.crt"), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert sidecar.metrics("certificate_expiry_seconds") == {f'{{listener="tcp://127.0.0.1:{port}"}}': ends.timestamp()}


def test_clients_need_a_certificate_of_the_authority(serve, authority, place, directory):
    port, listen = tls(place, f"client-ca-file={place}/ca.crt")
    serve(listen=[listen])
    with dial(port, authority, authority.sign("client")) as client:
        client.create()
    strangers = Authority(directory / "strangers")
    for pair in (None, strangers.sign("client"), authority.sign("expired", days=-1)):
        with dial(port, authority, pair) as client:
            assert refused(client.create).code() == Code.UNAVAILABLE


@contextmanager
def load(port: int, *authorities: Authority) -> Iterator[Callable[[], int]]:
    """Clients that connect, call and hang up, all the time, and one whose connection stays. Answers how many calls were answered; one that fails, fails
    the test."""
    trusted = b"".join(authority.certificate.read_bytes() for authority in authorities)
    over, answered, failed = threading.Event(), [], []

    def call(client: Client) -> None:
        try:
            client.create()
            answered.append(1)
        except grpc.RpcError as error:
            failed.append(error.details())

    def come_and_go() -> None:
        while not over.is_set():
            with Client(f"127.0.0.1:{port}", credentials=grpc.ssl_channel_credentials(trusted)) as client:
                call(client)

    def stay() -> None:
        with Client(f"127.0.0.1:{port}", credentials=grpc.ssl_channel_credentials(trusted)) as client:
            while not over.is_set():
                call(client)

    threads = [threading.Thread(target=run) for run in (come_and_go, come_and_go, come_and_go, stay)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: len(answered)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failed, failed[:3]


def test_a_renewed_certificate_is_taken_over_under_load(serve, authority, place, directory):
    port, listen = tls(place)
    sidecar = serve(listen=[listen])
    others = Authority(directory / "others")
    (certificate, key) = others.sign("server", days=9)
    before = sidecar.metrics("certificate_expiry_seconds")
    with load(port, authority, others) as answered:

        def told(text: str) -> None:
            eventually(lambda: text in sidecar.output(), f"{text!r} is told")
            known = answered()
            eventually(lambda: answered() > known + 10, "the load goes on")

        # Half of a file, a certificate without its key, and one that has ended, change nothing.
        (place / "tls.crt").write_bytes(certificate.read_bytes()[:200])
        told("it is no PEM, or half of one")
        (place / "tls.crt").write_bytes(certificate.read_bytes())
        told("do not belong together")
        for source, name in zip(others.sign("ended", days=-1), ("tls.crt", "tls.key"), strict=True):
            shutil.copy(source, place / f"{name}.new")
        for name in ("tls.key", "tls.crt"):
            (place / f"{name}.new").rename(place / name)
        told("its certificate has ended")
        assert sidecar.metrics("certificate_expiry_seconds") == before
        with dial(port, authority) as another:
            another.create()
        (place / "tls.key").write_bytes(key.read_bytes())
        (place / "tls.crt").write_bytes(certificate.read_bytes())
        eventually(lambda: sidecar.metrics("certificate_expiry_seconds") != before, "the new one is taken over")
        # Connections that are open stay; new ones meet the new certificate.
        known = answered()
        eventually(lambda: answered() > known + 10, "the load goes on")
    with dial(port, others) as client:
        client.create()
    with dial(port, authority) as client:
        assert refused(client.create).code() == Code.UNAVAILABLE
    assert sidecar.metrics("listener_file_reloads_total")['{outcome="applied"}'] == 1


def test_another_authority_of_clients_is_taken_over(serve, authority, place, directory):
    port, listen = tls(place, f"client-ca-file={place}/ca.crt")
    sidecar = serve(listen=[listen])
    others = Authority(directory / "others")
    (old, new) = (authority.sign("client"), others.sign("client"))

    def lets(pair: tuple[Path, Path]) -> bool:
        with dial(port, authority, pair) as client:
            try:
                return bool(client.create().session_id)
            except grpc.RpcError as error:
                assert error.code() == Code.UNAVAILABLE
                return False

    def reloads(outcome: str) -> float:
        return sidecar.metrics("listener_file_reloads_total").get(f'{{outcome="{outcome}"}}', 0)

    both = authority.certificate.read_bytes() + others.certificate.read_bytes()
    assert (lets(old), lets(new)) == (True, False)
    with dial(port, authority, old) as client:
        client.create()
        (place / "ca.crt").write_bytes(both[:-300])
        eventually(lambda: reloads("refused") == 1, "half a file is refused")
        assert "client-ca-file: it is no PEM, or half of one" in sidecar.output()
        assert (lets(old), lets(new)) == (True, False)
        (place / "ca.crt").write_bytes(both)
        eventually(lambda: reloads("applied") == 1, "two authorities, while clients change")
        assert (lets(old), lets(new)) == (True, True)
        (place / "ca.crt").write_bytes(others.certificate.read_bytes())
        eventually(lambda: reloads("applied") == 2, "the old one is taken away")
        assert (lets(old), lets(new)) == (False, True)
        # Who has shown a certificate of the old one goes on until the connection ends.
        client.create()


def test_a_certificate_that_has_ended_is_told_of(serve, binary, authority, place):
    """It is served: who does not look at it, or comes by another listener, is not kept out."""
    for source, name in zip(authority.sign("ended", days=-1), ("tls.crt", "tls.key"), strict=True):
        shutil.copy(source, place / name)
    port, listen = tls(place)
    told = f"--listen tcp://127.0.0.1:{port}: tls-cert-file: its certificate has ended"
    checked = run(binary, "check-config", "--listen", listen)
    assert checked.returncode == 0 and f"warning: {told}" in checked.stdout
    sidecar = serve(listen=[listen])
    assert told in sidecar.output()
    with dial(port, authority) as client:
        assert refused(client.create).code() == Code.UNAVAILABLE
    assert sidecar.metrics("certificate_expiry_seconds")[f'{{listener="tcp://127.0.0.1:{port}"}}'] > 0


def test_an_authority_is_changed_beside_a_certificate_that_has_ended(serve, authority, place, directory):
    """Those whom the old one lets in must not stay because of it."""
    for source, name in zip(authority.sign("ended", days=-1), ("tls.crt", "tls.key"), strict=True):
        shutil.copy(source, place / name)
    _, listen = tls(place, f"client-ca-file={place}/ca.crt")
    sidecar = serve(listen=[listen])
    (place / "ca.crt").write_bytes(Authority(directory / "others").certificate.read_bytes())
    eventually(lambda: sidecar.metrics("listener_file_reloads_total").get('{outcome="applied"}') == 1, "the new authority is in force")


@pytest.mark.parametrize("query", ["token-file={path}", "verbs=none"])
def test_who_may_do_nothing_is_turned_away_before_the_request_is_read(serve, directory, query):
    """Else strangers fill the memory with requests that they do not finish."""
    path = directory / "token"
    path.write_text(TOKEN)
    port = free_port()
    sidecar = serve(listen=[f"tcp://127.0.0.1:{port}?{query.format(path=path)}"])
    opening = http2.PREFACE + http2.settings() + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.header_block("Touch"))
    with http2.RawConnection(port, opening) as connection:
        kinds = (kind for kind, stream, _ in connection.frames() if stream == 1)
        assert next(kinds) == http2.HEADERS, "an answer, to a request of which there is a head only"
    counted = sidecar.metrics("rpcs_total")
    code = "UNAUTHENTICATED" if "token" in query else "PERMISSION_DENIED"
    assert counted[f'{{method="Touch",code="{code}"}}'] == 1


def test_calls_need_the_token_and_it_can_be_changed(serve, directory):
    path = directory / "token"
    path.write_text(TOKEN + "\n")
    port = free_port()
    sidecar = serve(listen=[f"tcp://127.0.0.1:{port}?token-file={path}"])

    def call(token: str | None):
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return client.sessions.Create(v1.CreateRequest(), metadata=metadata, timeout=10)

    with Client(f"127.0.0.1:{port}") as client:
        call(TOKEN)
        for wrong in (None, NEXT, TOKEN + "x", TOKEN[:-1]):
            error = refused(lambda wrong=wrong: call(wrong))
            assert (error.code(), reason(error)) == (Code.UNAUTHENTICATED, "CALLER_NOT_AUTHENTICATED")
            assert "token" in error.details() and TOKEN not in error.details()
        path.write_text(f"{TOKEN}\n{NEXT}\n")
        eventually(lambda: sidecar.metrics("listener_file_reloads_total")['{outcome="applied"}'] == 1, "two tokens are valid")
        call(TOKEN)
        call(NEXT)
        path.write_text("")
        eventually(lambda: sidecar.metrics("listener_file_reloads_total")['{outcome="refused"}'] == 1, "an empty file is refused")
        call(NEXT)
        path.write_text(NEXT)
        eventually(lambda: sidecar.metrics("listener_file_reloads_total")['{outcome="applied"}'] == 2, "the old one is taken away")
        call(NEXT)
        assert refused(lambda: call(TOKEN)).code() == Code.UNAUTHENTICATED
    assert TOKEN not in sidecar.output() and NEXT not in sidecar.output()


def test_the_command_line_speaks_tls_and_shows_what_it_has(serve, binary, authority, place, directory):
    port, listen = tls(place, f"client-ca-file={place}/ca.crt", f"token-file={directory}/token")
    (directory / "token").write_text(f"{TOKEN}\n{NEXT}\n")
    sidecar = serve(listen=[listen])
    certificate, key = authority.sign("client")
    target = ["--target", f"https://localhost:{port}"]
    known = [*target, "--tls-ca-file", str(authority.certificate)]
    shown = [*known, "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    assert run(binary, "healthcheck", *shown).stdout == "serving\n"
    created = run(binary, "create", *shown, "--token-file", str(directory / "token"))
    assert created.returncode == 0, created.stderr
    by_variables = {
        "SESSION_SIDECAR_TARGET": target[1],
        "SESSION_SIDECAR_TLS_CA_FILE": str(authority.certificate),
        "SESSION_SIDECAR_TLS_CERT_FILE": str(certificate),
        "SESSION_SIDECAR_TLS_KEY_FILE": str(key),
        "SESSION_SIDECAR_TOKEN_FILE": str(directory / "token"),
    }
    assert run(binary, "create", env=by_variables).returncode == 0
    for options, told in [
        (target, "can be reached"),
        (known, ""),
        (shown, "CALLER_NOT_AUTHENTICATED"),
        ([*shown, "--token-file", str(directory / "none")], "--token-file"),
        ([*known, "--tls-cert-file", str(certificate)], "--tls-key-file"),
        (["--target", "ftp://localhost:1"], "https://NAME:PORT"),
    ]:
        done = run(binary, "create", *options)
        assert done.returncode != 0 and told in done.stderr, done.stderr
    assert TOKEN not in sidecar.output()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("", "--allow-plaintext"),
        ("token-file={folder}/token", "clear text"),
        ("tls-cert-file={folder}/tls.crt&tls-key-file={folder}/tls.key", "client-ca-file= or token-file="),
        ("tls-cert-file={folder}/tls.crt&tls-key-file={folder}/ca.crt&token-file={folder}/token", "tls-key-file"),
        ("tls-cert-file={folder}/token&tls-key-file={folder}/tls.key&token-file={folder}/token", "tls-cert-file"),
        ("tls-cert-file={folder}/none&tls-key-file={folder}/tls.key&token-file={folder}/token", "{folder}/none cannot be read"),
        ("tls-cert-file={folder}/tls.crt&tls-key-file={folder}/tls.key&client-ca-file={folder}/token", "client-ca-file"),
        ("tls-cert-file={folder}/tls.crt&tls-key-file={folder}/tls.key&token-file={folder}/tls.crt", "token-file"),
    ],
)
def test_a_routable_listener_says_beforehand_what_it_lacks(binary, place, query, told):
    (place / "token").write_text(TOKEN)
    checked = run(binary, "check-config", "--listen", "tcp://0.0.0.0:1?" + query.format(folder=place))
    assert checked.returncode == 64
    assert told.format(folder=place) in checked.stderr
    assert TOKEN not in checked.stderr


def test_a_routable_listener_with_tls_and_a_token_is_good(binary, place):
    (place / "token").write_text(TOKEN)
    query = f"tls-cert-file={place}/tls.crt&tls-key-file={place}/tls.key"
    for last in (f"token-file={place}/token", f"client-ca-file={place}/ca.crt"):
        assert run(binary, "check-config", "--listen", f"tcp://0.0.0.0:1?{query}&{last}").returncode == 0
