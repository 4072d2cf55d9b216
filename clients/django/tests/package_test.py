"""The package as it is shipped: types that hold, a wheel that has all of it, and a copy of the module that is the module."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SOURCE = HERE / "src/django_session_sidecar"


def run(*command, cwd=HERE, **options):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


def test_mypy_strict_is_content():
    code, told = run("-m", "mypy", "--cache-dir", "/dev/null")
    assert code == 0, told


def test_the_module_is_a_copy():
    assert (SOURCE / "sidecar.js").read_bytes() == (HERE.parent / "browser/session-sidecar.js").read_bytes(), "copy it again"


def test_the_wheel_has_all_of_it_and_works_where_it_is_installed(tmp_path):
    wheels = []
    for folder in (HERE.parent / "python", HERE):
        copy = tmp_path / folder.name
        subprocess.run(["cp", "-r", folder, copy], check=True)
        code, told = run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path / "wheels", copy)
        assert code == 0, told
    wheels = sorted((tmp_path / "wheels").glob("*.whl"))
    code, told = run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "site", *wheels)
    assert code == 0, told
    shipped = {path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.suffix in (".py", ".typed", ".js", ".html")}
    installed = tmp_path / "site/django_session_sidecar"
    assert shipped == {path.relative_to(installed) for path in installed.rglob("*") if path.suffix in (".py", ".typed", ".js", ".html")}
    # A project that says no more than this.
    program = """
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ROOT_URLCONF="django_session_sidecar.urls", SESSION_SIDECAR={},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django_session_sidecar"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django_session_sidecar.middleware.SessionSidecarMiddleware"],
    ALLOWED_HOSTS=["*"],
)
import django
django.setup()
from django.test import Client
print(Client().get("/session").json(), len(Client().get("/session/sidecar.js").content))
import django_session_sidecar
print(django_session_sidecar.__file__, django_session_sidecar.hold, django_session_sidecar.EndedCloser)
"""
    code, told = run("-c", program, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}, cwd=tmp_path)
    assert code == 0 and "'state': 'NONE'" in told and str(installed) in told, told
    entry = next((tmp_path / "site").glob("django_session_sidecar-*/entry_points.txt")).read_text()
    assert "session_sidecar = django_session_sidecar.pytest_plugin" in entry
