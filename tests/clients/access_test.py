"""TLS, a client certificate and a token at once, by what is copied from examples/: a driver for each language makes clients and asks."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from support.certificates import Authority
from support.process import Sidecar as Process
from support.process import clean_environment, eventually, free_port

TOKEN = "dG9rZW4tb2YtdGhlLXNob3A="
NEXT = "dGhlLW5leHQtdG9rZW4tcGxlYXNl"
NOBODYS = "YS10b2tlbi1vZi1ub2JvZHk="
DRIVERS = {
    "cpp": lambda: [str(build.cpp("driver", build.HERE / "cpp/driver.cc")), "20000"],
    "java": lambda: build.java("AccessDriver", build.HERE / "java/AccessDriver.java"),
    "ruby": lambda: build.ruby(build.HERE / "ruby/access.rb"),
}
VARIABLES = {
    "tls_ca_file": "SESSION_SIDECAR_TLS_CA_FILE",
    "tls_cert_file": "SESSION_SIDECAR_TLS_CERT_FILE",
    "tls_key_file": "SESSION_SIDECAR_TLS_KEY_FILE",
    "token_file": "SESSION_SIDECAR_TOKEN_FILE",
}


class Driver:
    """A process that has a client."""

    def __init__(self, language: str, log: Path, **environment: str) -> None:
        self._log = log
        with log.open("a") as complaints:
            self.process = subprocess.Popen(
                DRIVERS[language](), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=clean_environment(**environment)
            )

    def __call__(self, line: str) -> str:
        """What it says to that. All of it is in the log."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        with self._log.open("a") as log:
            log.write(said)
        return said

    def client(self, **options: object) -> str:
        """Has it make a client of these options."""
        return self(" ".join(["client", *(f"{name}={value}" for name, value in options.items())]))

    def asks(self) -> str:
        """What becomes of its client's question about nobody's session."""
        said = self("touch an-id-that-was-never-issued").lower().replace("notpermitted", "not permitted")
        return re.search("unknown|unreachable|not permitted", said)[0]

    def stop(self) -> None:
        """Ends it."""
        self.process.stdin.close()
        assert self.process.wait(30) == 0, self._log.read_text()


@pytest.mark.parametrize("language", DRIVERS)
def test_tls_with_a_client_certificate_and_a_token(serve: Callable[..., Process], directory: Path, language: str):
    authority, others = Authority(directory / "authority"), Authority(directory / "others")
    (server, server_key), (certificate, key) = authority.sign("server"), authority.sign("shop")
    known, own, wrong, garbage, log = (directory / name for name in ("known", "own", "wrong", "garbage", "log"))
    known.write_text(f"{TOKEN}\n{NEXT}\n")
    own.write_text(f"\n{TOKEN}\n")
    wrong.write_text(NOBODYS)
    garbage.write_text("SECRETS\u00fc")
    query = f"tls-cert-file={server}&tls-key-file={server_key}&client-ca-file={authority.certificate}&token-file={known}"
    serve(listen=[f"tcp://127.0.0.1:{(port := free_port())}?{query}"])
    target = {"target": f"https://localhost:{port}"}
    tls = {"tls_ca_file": authority.certificate, "tls_cert_file": certificate, "tls_key_file": key}
    everything = {**target, **tls, "token_file": own}

    # What the environment says, unless an option does; of an address in clear text only the token.
    by_variables = Driver(language, log, SESSION_SIDECAR_TARGET=target["target"], **{name: str(everything[option]) for option, name in VARIABLES.items()})
    by_variables.client()
    assert by_variables.asks() == "unknown"
    by_variables.client(token_file=wrong)
    assert by_variables.asks() == "not permitted"
    by_variables.client(tls_ca_file=others.certificate)
    assert by_variables.asks() == "unreachable"
    assert re.search("certificate|trust anchors", log.read_text()), "the reason is told"
    assert by_variables.client(target="localhost:1").startswith("client")
    said = by_variables.client(token_file="", target="https://localhost:1", tls_ca_file=garbage)
    assert str(garbage) in said

    driver = Driver(language, log)
    driver.client(**everything)
    assert driver.asks() == "unknown"
    # The token's file is followed; what is no token changes nothing.
    own.write_text("")
    assert driver.asks() == "unknown"
    own.write_text(NEXT)
    assert driver.asks() == "unknown"
    known.write_text(NEXT)
    wrong.write_text(TOKEN)
    by_variables.client(token_file=wrong)
    eventually(lambda: by_variables.asks() == "not permitted", "the old one is refused")
    assert driver.asks() == "unknown"
    driver.client(**{**everything, "tls_cert_file": "", "tls_key_file": ""})
    assert driver.asks() == "unreachable"

    # What is of no use is told by its name and path.
    for options, words in [
        ({**target, "tls_cert_file": certificate}, ["tls_cert_file", "tls_key_file"]),
        ({**target, "tls_key_file": key}, ["tls_key_file", "tls_cert_file"]),
        ({**everything, "tls_ca_file": garbage}, ["tls_ca_file", garbage]),
        ({**everything, "tls_cert_file": garbage}, ["tls_cert_file", garbage]),
        ({**everything, "tls_key_file": garbage}, ["tls_key_file", garbage]),
        ({**everything, "tls_key_file": directory / "none"}, ["tls_key_file", directory / "none"]),
        ({**everything, "token_file": directory / "none"}, ["token_file", directory / "none"]),
        ({**everything, "token_file": garbage}, ["token_file", garbage]),
        ({**tls, "target": "localhost:1"}, ["tls_ca_file", "https://"]),
    ]:
        said = driver.client(**options)
        assert all(plain(word) in plain(said) for word in words), said
    by_variables.stop()
    driver.stop()
    assert not [secret for secret in (TOKEN, NEXT, NOBODYS, "SECRETS") if secret in log.read_text()]


def plain(word: object) -> str:
    """An option's name is written as its language writes it."""
    return str(word).replace("_", "").lower()
