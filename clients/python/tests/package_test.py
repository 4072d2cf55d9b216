"""The package as it is shipped: generated code that is up to date, types that hold, a wheel that has all of it."""

import subprocess
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CONFIG = str(HERE / "tests/mypy.ini")
GENERATED = HERE / "src/session_sidecar/_proto"


def run(*command, cwd=HERE, **options):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


def test_the_generated_code_is_that_of_the_proto_files(tmp_path):
    code, told = run("generate.py", tmp_path)
    assert code == 0, told
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in GENERATED.glob("*_pb2.py*")}
    assert made == kept, "run clients/python/generate.py"


def test_mypy_strict_is_content():
    code, told = run("-m", "mypy", "--cache-dir", "/dev/null")
    assert code == 0, told


def test_a_program_that_uses_it_is_checked_to_the_type(tmp_path):
    """The verbs are made by a decorator: their signatures must come through."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            from datetime import timedelta
            from typing import assert_type
            from session_sidecar import AsyncSidecar, Created, Ended, Fail, Sidecar, Touched, Unknown, Unreachable, events

            sidecar = Sidecar(fail=Fail.OPEN)
            assert_type(sidecar.touch("id", idle_for=timedelta()), Touched | Ended | Unknown | Unreachable)
            assert_type(sidecar.create(subject="ada"), Created)
            sidecar.touch(3)  # type: ignore[arg-type]
            sidecar.touch("id", idle_for=3)  # type: ignore[arg-type]
            sidecar.touch("id", hurry=True)  # type: ignore[call-arg]

            async def live(sidecar: AsyncSidecar) -> None:
                assert_type(await sidecar.create(), Created)
                async for event in sidecar.watch(everything=True):
                    match event:
                        case events.Ended():
                            print(event.end.reason)
        """)
    )
    code, told = run("-m", "mypy", "--config-file", CONFIG, "--cache-dir", "/dev/null", program, env={"MYPYPATH": str(HERE / "src"), "PATH": "/usr/bin:/bin"}, cwd=tmp_path)
    assert code == 0, told


def test_the_wheel_has_all_of_it_and_needs_no_more_than_it_says(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", HERE, source], check=True)
    code, told = run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    assert code == 0, told
    (wheel,) = tmp_path.glob("*.whl")
    code, told = run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    assert code == 0, told
    installed = tmp_path / "site/session_sidecar"
    shipped = {path.relative_to(HERE / "src/session_sidecar") for path in (HERE / "src/session_sidecar").rglob("*") if path.suffix in (".py", ".pyi", ".typed")}
    assert shipped == {path.relative_to(installed) for path in installed.rglob("*") if path.suffix in (".py", ".pyi", ".typed")}
    program = "import session_sidecar; print(session_sidecar.__file__, session_sidecar.Sidecar())"
    code, told = run("-c", program, env={"PYTHONPATH": str(tmp_path / "site")}, cwd=tmp_path)
    assert code == 0 and str(installed) in told, told


def test_it_loads_beside_googleapis_own_messages(tmp_path):
    """google.rpc.Status is defined by googleapis-common-protos; this package must not define it again."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from google.protobuf import descriptor_pool, descriptor_pb2
status = descriptor_pb2.FileDescriptorProto(name="google/rpc/status.proto", package="google.rpc", syntax="proto3")
status.message_type.add(name="Status")
status.message_type.add(name="ErrorInfo")
descriptor_pool.Default().Add(status) if hasattr(descriptor_pool.Default(), "Add") else descriptor_pool.Default().AddSerializedFile(status.SerializeToString())
import session_sidecar
"""
    code, told = run("-c", program, HERE / "src", cwd=tmp_path)
    assert code == 0, told
