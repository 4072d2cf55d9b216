"""Certificates at https:// targets, and bearer tokens: of a real sidecar that demands them."""

import logging
from contextlib import closing

import pytest
from helpers import NEVER_ISSUED, PATIENT, Blocking, shown
from support.certificates import Authority
from support.process import eventually, free_port

from session_sidecar import (
    AsyncSidecar,
    AsyncSidecarAdmin,
    EndReason,
    InvalidRequestError,
    NotPermittedError,
    Sidecar,
    SidecarAdmin,
    SidecarUnreachableError,
    Unknown,
    Unreachable,
    events,
)
from session_sidecar.fake import FakeSidecar
from session_sidecar.testing import advance

TOKEN = "dG9rZW4tb2YtdGhlLWRlc2s="
NEXT = "dGhlLW5leHQtdG9rZW4tcGxlYXNl"
CLIENTS = {
    Sidecar: Sidecar,
    SidecarAdmin: SidecarAdmin,
    AsyncSidecar: lambda *told, **named: Blocking(AsyncSidecar(*told, **named)),
    AsyncSidecarAdmin: lambda *told, **named: Blocking(AsyncSidecarAdmin(*told, **named)),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Without variables that mean the client."""
    for name in ("TARGET", "TLS_CA_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE", "TOKEN_FILE"):
        monkeypatch.delenv(f"SESSION_SIDECAR_{name}", raising=False)


@pytest.fixture
def authority(directory):
    return Authority(directory / "authority")


@pytest.fixture
def token(directory):
    """The client's token file."""
    file = directory / "token"
    file.write_text(TOKEN)
    return file


@pytest.fixture
def listening(serve):
    """Starts a sidecar with a listener that has this query; answers it, and its address."""

    def start(verbs="use,issue,end,watch-own,watch-all,admin", **query):
        address = f"127.0.0.1:{free_port()}"
        told = "&".join(f"{name.replace('_', '-')}={value}" for name, value in query.items())
        return serve("--dev", listen=[f"tcp://{address}?verbs={verbs}&{told}"]), address

    return start


@pytest.fixture
def tls(listening, authority):
    """Starts one with a certificate of the authority; answers its address."""

    def start(names="DNS:localhost,IP:127.0.0.1", **query):
        certificate, key = authority.sign("server", names=names)
        return listening(tls_cert_file=certificate, tls_key_file=key, **query)[1]

    return start


@pytest.fixture(params=[Sidecar, AsyncSidecar], ids=["threads", "asyncio"])
def dial(request):
    """Makes clients, and closes them."""
    clients = []

    def make(*told, **named):
        clients.append(CLIENTS[request.param](*told, deadline=PATIENT, **named))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def refused(call) -> NotPermittedError:
    with pytest.raises(NotPermittedError) as error:
        call()
    return error.value


def test_https_is_tls_with_the_authorities_of_a_file(dial, tls, authority):
    target = f"https://{tls()}"
    sidecar = dial(f"{target}/", tls_ca_file=authority.certificate)
    assert target in repr(sidecar)
    created = sidecar.create(subject="ada")
    assert sidecar.touch(created.session_id).allowed
    watch = sidecar.watch([created.session_id])
    assert [type(next(watch)) for _ in range(2)] == [events.Snapshot, events.SnapshotEnd]
    sidecar.end(created.session_id)
    assert next(watch).end.reason is EndReason.LOGOUT
    watch.close()


def test_a_path_may_be_a_path_and_the_test_clock_goes_over_tls(tls, authority, token):
    address = tls(token_file=token)
    with Sidecar(f"https://{address}", tls_ca_file=str(authority.certificate), token_file=str(token), deadline=PATIENT) as sidecar:
        session_id = sidecar.create().session_id
        advance(sidecar, PATIENT)
        assert not sidecar.touch(session_id).allowed


def test_a_server_that_cannot_be_trusted_is_unreachable_and_says_why(dial, tls, authority, directory):
    strangers = Authority(directory / "strangers").certificate
    address = tls()
    elsewhere = tls(names="DNS:elsewhere.example")
    for sidecar in (
        dial(f"https://{address}", tls_ca_file=strangers),
        dial(f"https://{address}"),  # By gRPC's own roots.
        dial(f"https://{elsewhere}", tls_ca_file=authority.certificate),
    ):
        answer = sidecar.touch(NEVER_ISSUED)
        # And not DEADLINE_EXCEEDED: nobody waits for it.
        assert isinstance(answer, Unreachable) and not answer.allowed and answer.code == "UNAVAILABLE"
        assert "verif" in answer.message.lower(), answer.message
        with pytest.raises(SidecarUnreachableError, match="UNAVAILABLE"):
            sidecar.create()


def test_clear_text_does_not_reach_a_server_of_tls(dial, tls):
    assert dial(tls()).touch(NEVER_ISSUED).code == "UNAVAILABLE"


def test_a_client_shows_its_certificate(dial, tls, authority):
    target = f"https://{tls(client_ca_file=authority.certificate)}"
    certificate, key = authority.sign("client")
    sidecar = dial(target, tls_ca_file=authority.certificate, tls_cert_file=certificate, tls_key_file=key)
    assert isinstance(sidecar.check(NEVER_ISSUED), Unknown)
    assert isinstance(next(sidecar.watch(everything=True)), events.SnapshotEnd)
    answer = dial(target, tls_ca_file=authority.certificate).check(NEVER_ISSUED)
    assert isinstance(answer, Unreachable) and answer.code == "UNAVAILABLE"


def test_certificates_are_read_for_each_connection_and_bad_ones_change_nothing(dial, tls, directory):
    trusted = directory / "trusted.crt"
    trusted.write_bytes(Authority(directory / "strangers").certificate.read_bytes())
    address = tls()
    sidecar = dial(f"https://{address}", tls_ca_file=trusted)
    assert isinstance(sidecar.check(NEVER_ISSUED), Unreachable)
    trusted.write_bytes((directory / "authority/ca.crt").read_bytes())
    watch = sidecar.watch(everything=True)
    assert isinstance(next(watch), events.SnapshotEnd), "a watch has a connection of its own"
    trusted.write_text("-----BEGIN CERTIFICATE-----\n")
    watch = sidecar.watch(everything=True)
    assert isinstance(next(watch), events.SnapshotEnd)


def test_a_token_is_shown_with_every_call_and_every_watch(dial, listening, token):
    address = listening(token_file=token)[1]
    sidecar = dial(address, token_file=token)
    session_id = sidecar.create().session_id
    assert sidecar.touch(session_id).allowed
    assert isinstance(next(sidecar.watch([session_id])), events.Snapshot)


@pytest.mark.parametrize("kind", [SidecarAdmin, AsyncSidecarAdmin])
def test_an_administrator_shows_certificates_and_a_token(kind, tls, authority, token):
    target = f"https://{tls(client_ca_file=authority.certificate, token_file=token)}"
    certificate, key = authority.sign("desk")
    files = {"tls_ca_file": authority.certificate, "tls_cert_file": certificate, "tls_key_file": key}
    with closing(CLIENTS[kind](target, **files, token_file=token)) as desk:
        assert desk.stats().states is not None
        assert list(desk.list_sessions()) == []
    with closing(CLIENTS[kind](target, **files)) as desk:
        assert refused(desk.stats).code == "UNAUTHENTICATED"


def test_a_caller_who_is_refused_is_not_permitted(dial, listening, token, directory):
    address = listening(verbs="use,watch-own", token_file=token)[1]
    (directory / "wrong").write_text(NEXT)
    for sidecar in (dial(address, token_file=directory / "wrong"), dial(address)):
        for call in (
            lambda: sidecar.touch(NEVER_ISSUED),
            lambda: sidecar.check(NEVER_ISSUED),
            lambda: sidecar.end(NEVER_ISSUED),
            lambda: next(sidecar.watch([NEVER_ISSUED])),
        ):
            assert refused(call).code == "UNAUTHENTICATED"
    known = dial(address, token_file=token)
    assert isinstance(known.touch(NEVER_ISSUED), Unknown)
    for call in (lambda: known.end(NEVER_ISSUED), lambda: next(known.watch(everything=True))):
        assert refused(call).code == "PERMISSION_DENIED"


def test_the_token_changes_while_client_and_watch_go_on(dial, listening, token, directory):
    demanded = directory / "demanded"
    demanded.write_text(TOKEN)
    process, address = listening(token_file=demanded)
    changes = "files of a listener changed"
    sidecar = dial(address, token_file=token)
    watch = sidecar.watch(everything=True)
    assert isinstance(next(watch), events.SnapshotEnd)
    demanded.write_text(f"{NEXT}\n{TOKEN}\n")
    eventually(lambda: process.output().count(changes) == 1, "both are good")
    sidecar.create()
    # Of two the first is shown. Empty lines are none.
    token.write_text(f"\n {NEXT} \r\n{TOKEN}\n")
    sidecar.create()
    demanded.write_text(NEXT)
    eventually(lambda: process.output().count(changes) == 2, "only the new one is good")
    session_id = sidecar.create().session_id
    sidecar.end(sidecar.create().session_id)
    assert any(isinstance(event, events.Ended) for event in watch), "it was cut off, and resumed with the new token"
    # Whatever becomes of the file, the last good token stays.
    for spoil in (lambda: token.write_text(""), lambda: token.write_text("no token"), token.unlink):
        spoil()
        assert sidecar.touch(session_id).allowed
    demanded.write_text(f"{TOKEN}-and-no-other")
    with pytest.raises(NotPermittedError):
        assert not list(watch)
    assert refused(lambda: sidecar.touch(session_id)).code == "UNAUTHENTICATED"
    token.write_text(f"{TOKEN}-and-no-other")
    assert sidecar.touch(session_id).allowed


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.__name__)
def test_files_that_will_not_do_are_refused_when_a_client_is_made(kind, authority, directory):
    certificate, key = map(str, authority.sign("client"))
    other = str(authority.sign("other")[1])
    missing, empty, words = (str(directory / name) for name in ("missing", "empty", "words"))
    (directory / "empty").write_text(" \n\n")
    (directory / "words").write_text("not-for-anybody to read\n")
    (directory / "binary").write_bytes(b"not-for-anybody\xff\n")
    https = "https://127.0.0.1:1"
    for target, files, told in [
        ("127.0.0.1:1", {"tls_ca_file": certificate}, ["tls_ca_file", "https://"]),
        ("unix:/s.sock", {"tls_cert_file": certificate, "tls_key_file": key}, ["tls_cert_file", "tls_key_file", "https://"]),
        (https, {"tls_cert_file": certificate}, ["tls_cert_file", "tls_key_file"]),
        (https, {"tls_key_file": key}, ["tls_cert_file", "tls_key_file"]),
        (https, {"tls_ca_file": missing}, ["tls_ca_file", missing, "No such file"]),
        (https, {"tls_ca_file": words}, ["tls_ca_file", words, "PEM"]),
        (https, {"tls_ca_file": directory}, ["tls_ca_file", str(directory), "cannot be read"]),
        (https, {"tls_cert_file": missing, "tls_key_file": key}, ["tls_cert_file", missing, "No such file"]),
        (https, {"tls_cert_file": certificate, "tls_key_file": missing}, ["tls_key_file", missing, "No such file"]),
        (https, {"tls_cert_file": words, "tls_key_file": key}, ["tls_cert_file", words, "PEM"]),
        (https, {"tls_cert_file": certificate, "tls_key_file": words}, ["tls_key_file", words, "PEM"]),
        (https, {"tls_cert_file": certificate, "tls_key_file": other}, ["tls_key_file", other]),
        ("127.0.0.1:1", {"token_file": missing}, ["token_file", missing, "No such file"]),
        ("127.0.0.1:1", {"token_file": empty}, ["token_file", empty, "empty"]),
        ("127.0.0.1:1", {"token_file": words}, ["token_file", words, "visible ASCII"]),
        (https, {"token_file": directory / "binary"}, ["token_file", str(directory / "binary"), "visible ASCII"]),
    ]:
        with pytest.raises(InvalidRequestError) as error:
            kind(target, **files)
        assert all(word in str(error.value) for word in told), error.value
        assert set(error.value.fields) <= set(files) | {"tls_cert_file", "tls_key_file"}
        assert "not-for-anybody" not in shown(error.value)
    with pytest.raises(TypeError, match="tls_ca"):
        kind(https, tls_ca=certificate)


def test_variables_say_what_options_do_not(dial, tls, listening, authority, token, directory, monkeypatch):
    address = tls(client_ca_file=authority.certificate, token_file=token)
    certificate, key = authority.sign("client")
    monkeypatch.setenv("SESSION_SIDECAR_TARGET", f"https://{address}")
    monkeypatch.setenv("SESSION_SIDECAR_TLS_CA_FILE", str(authority.certificate))
    monkeypatch.setenv("SESSION_SIDECAR_TLS_CERT_FILE", str(certificate))
    monkeypatch.setenv("SESSION_SIDECAR_TLS_KEY_FILE", str(key))
    monkeypatch.setenv("SESSION_SIDECAR_TOKEN_FILE", str(token))
    assert isinstance(dial().check(NEVER_ISSUED), Unknown)
    # An option comes first; an empty one is none.
    (directory / "wrong").write_text(NEXT)
    for wrong in (directory / "wrong", ""):
        sidecar = dial(token_file=wrong)
        assert refused(lambda: sidecar.check(NEVER_ISSUED)).code == "UNAUTHENTICATED"
    assert isinstance(dial(tls_cert_file="", tls_key_file="").check(NEVER_ISSUED), Unreachable)
    # Those for TLS mean nothing in clear text, where the token is shown too.
    monkeypatch.setenv("SESSION_SIDECAR_TLS_CA_FILE", "/none/such")
    monkeypatch.delenv("SESSION_SIDECAR_TLS_KEY_FILE")
    clear = listening(token_file=token)[1]
    assert isinstance(dial(clear).check(NEVER_ISSUED), Unknown)


def test_a_variable_that_will_not_do_is_named(monkeypatch, authority):
    certificate, _ = authority.sign("client")
    target = "https://127.0.0.1:1"
    for name in ("TLS_CA_FILE", "TOKEN_FILE"):
        with monkeypatch.context() as changed, pytest.raises(InvalidRequestError, match=f"SESSION_SIDECAR_{name}: /none/such"):
            changed.setenv(f"SESSION_SIDECAR_{name}", "/none/such")
            Sidecar(target)
    monkeypatch.setenv("SESSION_SIDECAR_TLS_CERT_FILE", str(certificate))
    with pytest.raises(InvalidRequestError, match="SESSION_SIDECAR_TLS_CERT_FILE and SESSION_SIDECAR_TLS_KEY_FILE"):
        Sidecar(target)


def test_a_fake_needs_no_credentials(monkeypatch):
    monkeypatch.setenv("SESSION_SIDECAR_TOKEN_FILE", "/none/such")
    sidecar = FakeSidecar()
    assert sidecar.touch(sidecar.create().session_id).allowed
    assert list(sidecar.admin().list_sessions()) and sidecar.asynchronous()


def test_the_token_is_in_nothing_that_is_shown_or_logged(dial, listening, token, directory, caplog):
    caplog.set_level(logging.DEBUG)
    demanded = directory / "demanded"
    demanded.write_text(NEXT)
    process, address = listening(token_file=demanded)
    sidecar, away = dial(address, token_file=token), dial(f"127.0.0.1:{free_port()}", token_file=token)
    told = [sidecar, away, away.touch(NEVER_ISSUED), refused(lambda: sidecar.touch(NEVER_ISSUED))]
    told += [refused(lambda: next(sidecar.watch(everything=True)))]
    with pytest.raises(SidecarUnreachableError) as error:
        away.create()
    told += [error.value, *map(vars, (sidecar, away))]
    everything = "\n".join(map(shown, told)) + caplog.text + process.output()
    assert "UNAUTHENTICATED" in everything
    assert TOKEN not in everything and NEXT not in everything
