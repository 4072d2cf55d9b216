"""What the charts render is what the program takes: its arguments, its policy file, its probes, its socket."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from charts import HELM, REPOSITORY, Case, Manifest, Refused, Rendered, cases, render
from program import http2
from support.process import clean_environment, eventually, free_port, run, tool

RUNS = [case for case in cases() if case.name != "platform"]
PAGE = (REPOSITORY / "docs/deploy.md").read_text()
START = {"unknown": "start", "start": {"app_session_age": "1h"}}
# WatchExpiry of the whole tenant (WatchScope.whole_tenant), by a caller that gives the server no window: not even the goodbye can be sent to it.
STUCK = http2.PREFACE + http2.settings(window=0) + http2.call("WatchExpiry", 1, b"\x0a\x02\x20\x01")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Stands for the root of the container's file system. Short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pod-") as path:
        yield Path(path)


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case.name)
def test_the_program_takes_the_arguments(case: Case, binary: Path, directory: Path) -> None:
    rendered = render(case)
    done = run(binary, "check-config", *_laid_out(rendered, directory)[1:])
    assert done.returncode == 0, done.stderr
    assert all(f"policy {name}" in done.stdout for name in _policies(case)), done.stdout


def test_a_policy_comes_out_as_it_went_in(binary: Path) -> None:
    (case,) = [case for case in cases() if case.name == "shop-policies"]
    shown = run(binary, "policy", "show", "--policy-file", "-", stdin=render(case).policy_file())
    assert shown.returncode == 0, shown.stderr
    told = shown.stdout
    for expected in ("revision = 3", '["/poll", "/notifications/*"]', 'leave_grace = "20s"', "passive = true", "enforce = false"):
        assert expected in told, f"{expected} is not in\n{told}"


def test_the_probes_and_the_socket(binary: Path, directory: Path) -> None:
    """As the example has them: from the pod's environment and volumes, and by the paths of the probes."""
    (case,) = [case for case in cases() if case.name == "shop-memory"]
    rendered = render(case)
    with _served(binary, rendered, directory) as address:
        _probes_answer(rendered, address, binary, directory)
        (variable,) = rendered.of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"]
        target = variable["value"].replace("unix:/run", f"unix:{directory}/run")
        assert variable["name"] == "SESSION_SIDECAR_TARGET"
        assert run(binary, "healthcheck", env={variable["name"]: target}).returncode == 0
        created = run(binary, "create", "--subject", "ada", env={variable["name"]: target})
        assert created.returncode == 0, created.stderr
        assert (directory / "run/session-sidecar/api.sock").stat().st_mode & 0o777 == 0o660


def test_a_shared_store_and_the_admin_socket(binary: Path, directory: Path) -> None:
    (case,) = [case for case in cases() if case.name == "shop-store"]
    with redis(directory) as port:
        store = {"url": f"redis://127.0.0.1:{port}", "password": {"secretName": ""}, "ca": {"secretName": ""}}
        rendered = render(case, values={"sidecar": {"store": store}})
        with _served(binary, rendered, directory) as address:
            _probes_answer(rendered, address, binary, directory)
            admin = f"unix:{directory}/run/session-sidecar-admin/admin.sock"
            assert run(binary, "stats", "--target", admin).returncode == 0
            assert (directory / "run/session-sidecar-admin/admin.sock").stat().st_mode & 0o777 == 0o600


def test_the_certificate_for_a_trial_is_one_for_callers(binary: Path, directory: Path) -> None:
    """As docs/deploy.md makes it: the command line trusts it, and serves with it."""
    (case,) = [case for case in cases() if case.name == "service-token"]
    port = free_port()
    with _served(binary, render(case), directory, port):
        access = {
            "SESSION_SIDECAR_TARGET": f"https://localhost:{port}",
            "SESSION_SIDECAR_TLS_CA_FILE": str(directory / "tls.crt"),
            "SESSION_SIDECAR_TOKEN_FILE": str(directory / "etc/session-sidecar/token/token"),
        }
        for command in ("healthcheck", "create"):
            done = run(binary, command, env=access)
            assert done.returncode == 0, done.stderr


def test_a_caller_with_a_token_shows_a_certificate_too(binary: Path, directory: Path) -> None:
    """The support desk of docs/deploy.md, where a listener asks for client certificates."""
    (values,) = [block for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "desk-token" in block]
    port = free_port()
    with _served(binary, render(Case("docs", "session-sidecar", Path()), values=yaml.safe_load(values), alone=True), directory, port):
        target = {"SESSION_SIDECAR_TARGET": f"https://localhost:{port}", "SESSION_SIDECAR_TLS_CA_FILE": str(directory / "tls.crt")}
        # It is its own authority.
        certificate = {"SESSION_SIDECAR_TLS_CERT_FILE": str(directory / "tls.crt"), "SESSION_SIDECAR_TLS_KEY_FILE": str(directory / "tls.key")}
        (file,) = (directory / "etc/session-sidecar/callers").rglob("token")
        token = {"SESSION_SIDECAR_TOKEN_FILE": str(file)}
        done = run(binary, "stats", "--tenant", "shop", env=target | certificate | token)
        assert done.returncode == 0, done.stderr
        done = run(binary, "stats", "--tenant", "shop", env=target | certificate)
        assert done.returncode and "CALLER_NOT_ALLOWED" in done.stderr, done.stderr
        done = run(binary, "stats", "--tenant", "shop", env=target | token)
        assert done.returncode and "CALLER_NOT" not in done.stderr, "it does not get to speak"


def test_the_probes_in_istio(binary: Path, directory: Path) -> None:
    """Commands, of a socket where nobody may do anything, and which the users of the other one are not asked for."""
    (case,) = [case for case in cases() if case.name == "shop-memory"]
    values = {"sidecar": {"mesh": {"kind": "istio"}, "socket": {"uids": [4000000000]}, "loopback": {"enabled": False}}}
    rendered = render(case, values=values)
    with _served(binary, rendered, directory) as address:
        _probes_answer(rendered, address, binary, directory)
        told = run(binary, "create", "--target", f"unix:{directory}/run/session-sidecar-probe/probe.sock")
        assert told.returncode and "CALLER_NOT_ALLOWED" in told.stderr


def test_the_pod_of_helm_test(binary: Path, directory: Path) -> None:
    """Its command succeeds at a sidecar that is ready, and at no other."""
    (case,) = [case for case in cases() if case.name == "service-mesh"]
    rendered = render(case, values={"test": {"enabled": True}})
    port = free_port()
    with _running(binary, rendered, directory, port) as (process, address):
        ready = partial(_helm_test, rendered, address)
        eventually(lambda: ready().returncode == 0, "the pod of helm test succeeds")
        assert ready().stdout == "ready\n"
        with http2.RawConnection(port, STUCK) as watcher:
            assert next(stream for kind, stream, _ in watcher.frames() if kind == http2.HEADERS) == 1, "it is served"
            process.terminate()
            eventually(lambda: ready().returncode, "the pod of helm test fails while the sidecar drains")
            assert _answers(f"http://{address}/livez"), "it is there, and not ready"
        assert process.wait(30) == 0
        assert ready().returncode, "nobody is there"


# Each is refused by the schema, too (refuse_test.py), which is not asked here.
@pytest.mark.parametrize(
    "values",
    [
        {"policies": {"default": {"idle_timeout": "15 parsecs"}}},
        {"door": {"unknown": "start"}},
        {"door": {"unknown": "start", "start": {"rate": 5}}},
        {"door": {"start": {"app_session_age": "1h"}}},
        {"door": {"routes": [{}]}},
        {"door": {"routes": [{"path": "/x"}]}},
        {"door": {"routes": [{"public": True}]}},
        {"door": {"routes": [{"path": [], "public": True}]}},
        {"door": {"routes": [{"path": "/x", "public": True, "passive": True}]}},
        {"door": START | {"routes": [{"path": "/x", "public": True, "policy": "default"}]}},
        {"door": {"routes": [{"path": "/x", "policy": "default"}]}},
        {"door": START, "policies": {"web": {}}},
        {"door": {"cookies": []}},
        {"door": {"header": "X Session"}},
        {"door": {"cookies": ["session id"]}},
        {"door": {"cookies": [{"name": "s", "path": "shop"}]}},
        {"door": {"cookies": [{"name": "s", "domain": "shop.example:80"}]}},
        {"door": {"cookies": [{"name": "__Host-s", "domain": "shop.example"}]}},
        {"door": {"cookies": [{"name": "__Host-s", "path": "/shop"}]}},
        {"door": {"tenant": "a b"}},
        {"door": {"origins": ["https://app.example/"]}},
        {"door": {"login_url": "//login.example"}},
        {"door": {"login_url": "/login#form"}},
        {"callers": [{"uid": 1, "verbs": []}]},
        {"callers": [{"uid": 1, "verbs": ["use"], "tenants": []}]},
        {"socket": {"group": "staff"}},
        {"store": {"url": "redis://u:secret@h"}, "key": {"secretName": "key"}},
    ],
    ids=str,
)
def test_what_the_schema_refuses_the_program_would(values: Manifest, binary: Path, directory: Path) -> None:
    case = _without_policies()
    with pytest.raises(Refused):
        render(case, values={"sidecar": values})
    rendered = render(case, values={"sidecar": values}, schema=False)
    assert run(binary, "check-config", *_laid_out(rendered, directory)[1:]).returncode == 64


# Each is next to one of those.
@pytest.mark.parametrize(
    "values",
    [
        {"door": {"routes": [{"path": "/x", "public": True, "passive": False}, {"path": "/y", "public": False, "passive": True}]}},
        {"door": START | {"routes": [{"path": "/x", "passive": True, "policy": "web"}]}, "policies": {"default": {}, "web": {}}},
        {"door": START | {"routes": [{"path": "/x", "public": False, "policy": "default"}, {"path": "/s", "public": True}]}},
        {"door": {"unknown": "deny"}, "policies": {"web": {}}},
        {"door": {"cookies": [], "header": "X-Session-Id"}},
        {"door": {"cookies": ["s" * 64, "__Host-s", {"name": "__Host-t", "path": "/"}]}},
        {"door": {"cookies": [{"name": "__Secure-s", "path": "/shop", "domain": ".shop.example"}]}},
        {"door": {"tenant": "a&b=c", "origins": ["https://app.example", "http://[::1]:8080"]}},
        {"door": {"login_url": "/"}},
        {"door": {"login_url": "https://login.example//in?a=<b>"}},
    ],
    ids=str,
)
def test_what_the_schema_takes_the_program_does(values: Manifest, helm: str, binary: Path, directory: Path) -> None:
    rendered = render(_without_policies(), helm, values={"sidecar": values})
    done = run(binary, "check-config", *_laid_out(rendered, directory)[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_a_pod_starts_while_its_store_is_away(binary: Path, directory: Path) -> None:
    (case,) = [case for case in cases() if case.name == "shop-store"]
    store = {"url": f"redis://127.0.0.1:{free_port()}", "password": {"secretName": ""}, "ca": {"secretName": ""}}
    rendered = render(case, values={"sidecar": {"store": store}})
    probe = rendered.sidecar()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 15
    with _served(binary, rendered, directory) as address:
        _probes_answer(rendered, address, binary, directory)


def test_the_version_is_one() -> None:
    cargo = (REPOSITORY / "Cargo.toml").read_text()
    version = next(line.split('"')[1] for line in cargo.splitlines() if line.startswith("version ="))
    for chart in ("session-sidecar", "session-sidecar-lib"):
        about = yaml.safe_load((HELM / chart / "Chart.yaml").read_text())
        assert about["appVersion"] == version and about["version"] == version


def _without_policies() -> Case:
    """One that neither has policies nor is a chart's that has some: what a test gives is all there is."""
    (case,) = [case for case in cases() if case.name == "service-mesh"]
    return case


def _policies(case: Case) -> list[str]:
    values = yaml.safe_load(case.values.read_text()) or {}
    return list(values.get("sidecar", {}).get("policies", {"default": {}}))


def _probes_answer(rendered: Rendered, address: str, binary: Path, directory: Path) -> None:
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        eventually(partial(_probed, rendered, name, address, binary, directory), f"{name} succeeds")


def _probed(rendered: Rendered, name: str, address: str, binary: Path, directory: Path) -> bool:
    """Whether a probe succeeds: a command of the image, or a path of the admin port."""
    container = rendered.sidecar()
    probe = container[name]
    if "exec" in probe:
        program, *arguments = probe["exec"]["command"]
        assert program == "/usr/local/bin/session-sidecar"
        return run(binary, *(argument.replace("unix:/run/", f"unix:{directory}/run/") for argument in arguments)).returncode == 0
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports[probe["httpGet"]["port"]] == 50152
    return _answers(f"http://{address}{probe['httpGet']['path']}")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _helm_test(rendered: Rendered, address: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command of the pod of `helm test`, where its Service's name and port stand for an address."""
    (pod,) = rendered.of_kind("Pod")
    (container,) = pod["spec"]["containers"]
    program, *options, url = container["command"]
    asked = re.fullmatch(r"http://([\w-]+):(\d+)(/\w+)", url)
    assert asked, url
    (service,) = [service["spec"] for service in rendered.of_kind("Service") if service["metadata"]["name"] == asked[1]]
    (port,) = [port for port in service["ports"] if port["port"] == int(asked[2])]
    # By which it comes to the sidecar's admin port.
    (deployment,) = rendered.of_kind("Deployment")
    assert service["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert {"name": port["targetPort"], "containerPort": 50152, "protocol": "TCP"} in rendered.sidecar()["ports"]
    # Not by a proxy of this machine.
    return subprocess.run([tool(program), *options, f"http://{address}{asked[3]}"], env={}, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def _served(binary: Path, rendered: Rendered, directory: Path, port: int | None = None) -> Iterator[str]:
    """Runs the container's arguments, over TCP on a port, and answers where its admin port is; stops it as a pod is stopped."""
    with _running(binary, rendered, directory, port) as (process, admin):
        yield admin
        process.terminate()
        assert process.wait(30) == 0, (directory / "log").read_text()


@contextmanager
def _running(binary: Path, rendered: Rendered, directory: Path, port: int | None) -> "Iterator[tuple[subprocess.Popen[bytes], str]]":
    """The process, and where its admin port is; ready when the startup probe is."""
    admin, api = f"127.0.0.1:{free_port()}", f"127.0.0.1:{port or free_port()}"
    arguments = [
        argument.replace("0.0.0.0:50152", admin).replace("0.0.0.0:50151", api).replace("127.0.0.1:50151", api)
        for argument in _laid_out(rendered, directory)
    ]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([str(binary), *arguments], stdout=output, stderr=output, env=clean_environment())

    def started() -> bool:
        assert process.poll() is None, log.read_text()
        return _probed(rendered, "startupProbe", admin, binary, directory)

    try:
        eventually(started, "the startup probe succeeds")
        yield process, admin
    finally:
        process.kill()
        process.wait()


def _laid_out(rendered: Rendered, directory: Path) -> list[str]:
    """Lays out what is mounted into the sidecar under a directory, and answers its arguments as they are there."""
    container = rendered.sidecar()
    (pod,) = [pod for pod in rendered.pods() if container in [*(pod.get("initContainers") or []), *pod["containers"]]]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        place = directory / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True)
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            (place / "policy.toml").write_text(rendered.policy_file().replace('"/etc/', f'"{directory}/etc/'))
        for name, content in _secret(volume.get("secret"), directory).items():
            (place / name).write_bytes(content)
            (place / name).chmod(volume["secret"]["defaultMode"])
    return [
        argument.replace("/etc/session-sidecar/", f"{directory}/etc/session-sidecar/").replace("unix:///run/", f"unix://{directory}/run/")
        for argument in container["args"]
    ]


def certify(directory: Path) -> tuple[Path, Path]:
    """A key, and a certificate that signs itself, in a directory: tls.key, tls.crt, as docs/deploy.md makes them for a trial, but for localhost."""
    key, certificate = directory / "tls.key", directory / "tls.crt"
    if not key.exists():
        (command,) = re.findall(r"^openssl (?:.*\\\n)*.*$", PAGE, re.MULTILINE)
        command = command.replace("sessions-session-sidecar.sessions.svc", "localhost")
        subprocess.run(["sh", "-euc", command], cwd=directory, check=True, capture_output=True)
    return key, certificate


def _secret(secret: Manifest | None, directory: Path) -> dict[str, bytes]:
    """What such a Secret would hold: certificates, or any 64 bytes."""
    if secret is None:
        return {}
    keys = {item["path"]: item["key"] for item in secret.get("items", [])} or {"tls.crt": "", "tls.key": ""}
    names = list(keys)
    if not any(name.endswith(".crt") for name in names):
        return {name: f"{secret['secretName']}/{key}".ljust(64, "=").encode() for name, key in keys.items()}
    key, certificate = certify(directory)
    return {name: (key if name.endswith(".key") else certificate).read_bytes() for name in names}


@contextmanager
def redis(directory: Path) -> Iterator[int]:
    """A Redis with nothing in it: its port."""
    port = free_port()
    command = [tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    log = directory / "redis.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        eventually(lambda: "Ready to accept connections" in log.read_text() or process.poll(), "Redis is ready")
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.kill()
        process.wait()
