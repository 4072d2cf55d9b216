"""What a client trusts and shows: certificates at https:// targets, and a bearer token at any. None of it is in a repr or an error."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import grpc

from ._errors import InvalidRequestError

HTTPS = "https://"
_TLS_OPTIONS = ("tls_ca_file", "tls_cert_file", "tls_key_file")
# What may stand in metadata. gRPC's own complaint about anything else would repeat it.
_TOKEN = re.compile(rb"[\x21-\x7e]+")


class CredentialFiles(TypedDict, total=False):
    """Files that each client takes. One that is not given, or None, is that of its environment variable; "" is none at all."""

    tls_ca_file: str | os.PathLike[str] | None
    """PEM of the authorities to trust, in place of gRPC's own; else SESSION_SIDECAR_TLS_CA_FILE. For https:// only."""
    tls_cert_file: str | os.PathLike[str] | None
    """PEM of the client certificate to show; else SESSION_SIDECAR_TLS_CERT_FILE. For https:// only."""
    tls_key_file: str | os.PathLike[str] | None
    """PEM of its key; else SESSION_SIDECAR_TLS_KEY_FILE. For https:// only."""
    token_file: str | os.PathLike[str] | None
    """Its first line that is not empty is the bearer token of all calls; else SESSION_SIDECAR_TOKEN_FILE. It is followed."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and the option or variable that named it."""

    name: str
    path: str

    def read(self) -> bytes:
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise self.wrong(f"cannot be read: {error.strerror}") from None

    def wrong(self, problem: str) -> InvalidRequestError:
        return InvalidRequestError(f"{self.name}: {self.path} {problem}", (self.name,))


def _named(option: str, given: str | os.PathLike[str] | None) -> _File | None:
    variable = f"SESSION_SIDECAR_{option.upper()}"
    file = _File(variable, os.environ.get(variable, "")) if given is None else _File(option, os.fspath(given))
    return file if file.path else None


class Credentials:
    """Those of a client of `target`. Raises InvalidRequestError for files that will not do."""

    def __init__(
        self,
        target: str,
        *,
        tls_ca_file: str | os.PathLike[str] | None = None,
        tls_cert_file: str | os.PathLike[str] | None = None,
        tls_key_file: str | os.PathLike[str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._tls: _Tls | None = None
        tls_files = (tls_ca_file, tls_cert_file, tls_key_file)
        if target.startswith(HTTPS):
            self._tls = _Tls(*map(_named, _TLS_OPTIONS, tls_files))
        elif useless := [option for option, given in zip(_TLS_OPTIONS, tls_files, strict=True) if given]:
            problem = "are of no use at a target in clear text: say https://"
            raise InvalidRequestError(f"{', '.join(useless)} {problem}", tuple(useless))
        token = _named("token_file", token_file)
        self._token = _Token(token) if token else None

    def for_channel(self) -> grpc.ChannelCredentials | None:
        """What a channel that is opened now trusts and shows; None: clear text."""
        return self._tls.latest() if self._tls else None

    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """What a call that is made now says beside its request."""
        return (("authorization", f"Bearer {self._token.latest()}"),) if self._token else None


class _Tls:
    """Certificates, which are read again for each channel. While the files will not do, those from before stay in use."""

    def __init__(self, authorities: _File | None, certificate: _File | None, key: _File | None) -> None:
        self._authorities = authorities
        self._pair = (certificate, key) if certificate and key else None
        if bool(certificate) != bool(key):
            both = "SESSION_SIDECAR_TLS_CERT_FILE and SESSION_SIDECAR_TLS_KEY_FILE"
            problem = f"tls_cert_file and tls_key_file (or {both}) are given together, or not at all"
            raise InvalidRequestError(problem, _TLS_OPTIONS[1:])
        self._known = self._read()

    def latest(self) -> grpc.ChannelCredentials:
        with contextlib.suppress(InvalidRequestError):
            self._known = self._read()
        return self._known

    def _read(self) -> grpc.ChannelCredentials:
        # gRPC would say nothing of a bad file until the first call, and then not which one it is.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        roots = certificate = key = None
        if file := self._authorities:
            roots = file.read()
            try:
                context.load_verify_locations(file.path)
            except OSError:
                raise file.wrong("has no certificates in PEM") from None
        if self._pair:
            shown, kept = self._pair
            certificate, key = shown.read(), kept.read()
            try:
                context.load_cert_chain(shown.path, kept.path, password="")
            except OSError:
                raise shown.wrong(f"and {kept.name}: {kept.path} are no certificate and its key, in PEM") from None
        return grpc.ssl_channel_credentials(roots, key, certificate)


class _Token:
    """A token, which is followed. While the file will not do, the token from before stays in use."""

    def __init__(self, file: _File) -> None:
        self._file = file
        # As of when it was read, and the token. What is read may be newer than that; then the next call reads it again.
        self._known = (_seen(file.path), self._read())

    def latest(self) -> str:
        seen = _seen(self._file.path)
        if seen and seen != self._known[0]:
            with contextlib.suppress(InvalidRequestError):
                self._known = (seen, self._read())
        return self._known[1]

    def _read(self) -> str:
        lines = (line.strip() for line in self._file.read().splitlines())
        token = next((line for line in lines if line), b"")
        if not token:
            raise self._file.wrong("is empty: it must hold a token")
        if not _TOKEN.fullmatch(token):
            raise self._file.wrong("holds no token: one is visible ASCII, without spaces")
        return token.decode()


def _seen(path: str) -> tuple[int, ...]:
    """What changes when a file does; nothing of one that is not there."""
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
