"""Builds what the tests of the Java, Ruby and C++ clients run. A result is kept under the hash of all that went into it: what has not
changed is not built again."""

import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import REPOSITORY, TOOLS

HERE = Path(__file__).resolve().parent
PACKAGES = TOOLS / "clients"
BUILT = TOOLS / "clients-built"
USR = PACKAGES / "usr"
LIBRARIES = next(iter(USR.glob("lib/*-linux-gnu")), USR / "lib")
PROTO = REPOSITORY / "proto"
OURS = [
    "sessionsidecar/v1/session_service.proto",
    "sessionsidecar/v1/session_admin_service.proto",
    "sessionsidecar/dev/v1/test_clock_service.proto",
]
# What Java and C++ read of google/rpc. Ruby's gRPC brings that along.
ERRORS = REPOSITORY / "clients/python/proto/errors.proto"
EXAMPLES = REPOSITORY / "examples"


def kept(name: str, inputs: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, made anew only if an input, the packages or the recipe changed."""
    if not PACKAGES.is_dir():
        raise SystemExit(f"{PACKAGES} is missing: tests/setup-clients.sh sets it up")
    digest = hashlib.sha256(repr((inspect.getsource(make), CPP)).encode())
    for path in [*sorted(inputs), REPOSITORY / "tests/packages-clients.txt"]:
        digest.update(str(path).encode() + b"\0" + path.read_bytes())
    folder = BUILT / f"{name}-{digest.hexdigest()[:16]}"
    if not folder.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        for old in BUILT.glob(f"{name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        making = Path(tempfile.mkdtemp(dir=BUILT, prefix="making-"))
        make(making)
        making.rename(folder)
    return folder


def run(*command: object) -> None:
    """Runs a step of a build."""
    done = subprocess.run([str(word) for word in command], env=os.environ | {"LD_LIBRARY_PATH": str(LIBRARIES)}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def generated(language: str, plugin: str, files: list[str | Path], roots: Iterable[Path] = (PROTO,)) -> Path:
    """Generated code of the API."""
    roots = list(roots)
    inputs = [next(path for root in roots if (path := root / file).exists()) for file in files]

    def make(out: Path) -> None:
        run(
            USR / "bin/protoc",
            *(f"-I{root}" for root in roots),
            f"--{language}_out={out}",
            f"--plugin=protoc-gen-grpc={USR}/bin/{plugin}",
            f"--grpc_out={out}",
            *files,
        )

    return kept(f"generated-{language}", inputs, make)


def snippet(page: str, name: str) -> str:
    """The code of a page of the docs whose first line ends with the name of its file."""
    for block in re.findall(r"^```\w+\n(.*?)^```$", (REPOSITORY / "docs" / page).read_text(), re.M | re.S):
        if block.partition("\n")[0].endswith(name):
            return block
    raise AssertionError(f"docs/{page} has no code for {name}")


def kept_text(name: str, text: str) -> Path:
    """A file of this name with this content."""
    path = BUILT / f"text-{hashlib.sha256(text.encode()).hexdigest()[:16]}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---- Java ----

# Without version: Debian's names that point to the one that is there.
NETTY = ["buffer", "codec", "codec-http", "codec-http2", "common", "handler", "resolver", "transport", "transport-native-epoll", "transport-native-unix-common"]
JARS = [
    *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite", "grpc-stub"),
    *(f"netty-{part}" for part in NETTY),
    "netty-tcnative",
    *("protobuf", "protobuf-util", "guava", "gson", "geronimo-annotation-1.3-spec", "jctools-core", "perfmark-api"),
]
TOMCAT = [
    *("tomcat10-annotations-api", "tomcat10-catalina", "tomcat10-coyote", "tomcat10-servlet-api", "tomcat10-api", "tomcat10-juli"),
    *("tomcat10-util", "tomcat10-util-scan", "tomcat10-jaspic-api", "tomcat10-jni"),
]


def jars(names: list[str]) -> str:
    paths = [USR / f"share/java/{name}.jar" for name in names]
    missing = [path.name for path in paths if not path.exists()]
    assert not missing, f"not among the packages: {missing}"
    return ":".join(map(str, paths))


def classes(name: str, sources: list[Path], on: str, *options: str) -> Path:
    def make(out: Path) -> None:
        run("javac", "--release", 17, *options, "-d", out, "-cp", on, *sources)

    return kept(name, [*sources, *(path for part in on.split(":") for path in Path(part).rglob("*.class"))], make)


@cache
def netty_native() -> Path:
    """The native parts of Netty: that of sockets from its source, and that of TLS by the name that Netty looks for. People get them from
    Maven Central, inside jars; with its Netty they need none for TLS."""
    epoll, common = (PACKAGES / f"src/netty/transport-native-{part}/src/main/c" for part in ("epoll", "unix-common"))
    sources = [*epoll.glob("*.[ch]"), *common.glob("*.[ch]")]
    home = Path(shutil.which("javac") or "").resolve().parents[1]
    tcnative = LIBRARIES / "jni/libnetty-tcnative.so"

    def make(out: Path) -> None:
        run(
            *("gcc", "-w", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE"),
            *(f"-I{folder}" for folder in (home / "include", home / "include/linux", common)),
            *("-o", out / "libnetty_transport_native_epoll_x86_64.so"),
            *(source for source in sources if source.suffix == ".c"),
        )
        shutil.copy(tcnative, out / "libnetty_tcnative.so")

    return kept("netty", [*sources, tcnative], make)


@cache
def java(main: str, *sources: Path) -> list[str]:
    """The command of a Java program among the tests, which stands on the example."""
    libraries = jars(JARS + TOMCAT)
    out = generated("java", "grpc_java_plugin", [*OURS, ERRORS.name], [PROTO, ERRORS.parent])
    api = classes("java-api", sorted(out.rglob("*.java")), libraries, "-nowarn")
    example = classes("java-example", sorted((EXAMPLES / "java/src").rglob("*.java")), f"{api}:{libraries}", "-Xlint:all,-classfile,-path,-processing", "-Werror")
    program = classes(f"java-{main}", list(sources), f"{example}:{api}:{libraries}", "-Xlint:all,-classfile,-path,-processing", "-Werror")
    return ["env", f"LD_LIBRARY_PATH={LIBRARIES}", "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Djava.library.path={netty_native()}", "-cp", f"{program}:{example}:{api}:{libraries}", main]


# ---- Ruby ----


@cache
def ruby_load_path() -> str:
    """Where Ruby finds its own library and the gems: packages that are not installed are not found by themselves."""
    gems = LIBRARIES / "rubygems-integration/3.1.0"
    found = [
        *gems.glob("extensions/*/*/*"),
        *gems.glob("gems/*/lib"),
        *gems.glob("gems/*/src/ruby/lib"),
        *USR.glob("share/rubygems-integration/all/gems/*/lib"),
        USR / "lib/ruby/vendor_ruby",
        USR / "lib/ruby/3.1.0",
        LIBRARIES / "ruby/3.1.0",
        LIBRARIES / "ruby/vendor_ruby/3.1.0",
        EXAMPLES / "ruby",
        generated("ruby", "grpc_ruby_plugin", OURS),
    ]
    return ":".join(map(str, found))


def ruby(program: Path) -> list[str]:
    """The command of a Ruby program."""
    environment = [f"LD_LIBRARY_PATH={LIBRARIES}", f"RUBYLIB={ruby_load_path()}"]
    return ["env", *environment, str(USR / "bin/ruby3.1"), "--disable-gems", "-W:no-experimental", str(program)]


# ---- C++ ----

CPP = ["g++", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-pthread", f"-isystem{USR}/include"]


@cache
def cpp_api() -> tuple[Path, Path]:
    """Generated code and its compiled library: what takes long."""
    out = generated("cpp", "grpc_cpp_plugin", [*OURS, ERRORS.name], [PROTO, ERRORS.parent])
    sources = sorted(out.rglob("*.cc"))

    def make(built: Path) -> None:
        objects = [built / f"{source.name}.o" for source in sources]
        for source, compiled in zip(sources, objects, strict=True):
            run(*CPP, "-c", f"-I{out}", "-o", compiled, source)
        run("ar", "rcs", built / "libapi.a", *objects)

    return out, kept("cpp-api", [*out.rglob("*.h"), *sources], make)


@cache
def cpp(name: str, *sources: Path) -> Path:
    """A C++ program among the tests, which stands on the example."""
    out, api = cpp_api()
    example = EXAMPLES / "cpp"
    libraries = ["-lgrpc++", "-lgrpc", "-lgpr", "-lprotobuf", "-labsl_strings", "-labsl_synchronization"]

    def make(built: Path) -> None:
        units = [*sources, *example.glob("*.cc")]
        run(*CPP, f"-isystem{out}", f"-I{example}", "-o", built / name, *units, api / "libapi.a", f"-L{LIBRARIES}", *libraries, f"-Wl,--disable-new-dtags,-rpath,{LIBRARIES},-rpath-link,{LIBRARIES}")

    return kept(f"cpp-{name}", [*sources, *example.glob("*.*"), *out.rglob("*.h")], make) / name
