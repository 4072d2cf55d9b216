"""The site that docs/django.md tells to write, written as it says: it is in order, runs, and its test passes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPOSITORY
from support.process import PATIENCE, clean_environment

HERE = Path(__file__).resolve().parents[1]
DOCUMENT = (REPOSITORY / "docs/django.md").read_text()
BLOCKS = re.findall(r"^```python\n# ([\w.]+)\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
POLICY = re.search(r"^```toml\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)

# Channels has no types; an admin class of a site has its parameters only with django-stubs installed.
TYPES = "\n[mypy-channels.*]\nignore_missing_imports = True\n[mypy-admin]\ndisable_error_code = type-arg\n"
# What `django-admin startproject` and any site with a login have.
BEGUN = {
    "settings.py": """
SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["."], "APP_DIRS": True, "OPTIONS": {"context_processors": [
    "django.template.context_processors.request", "django.contrib.auth.context_processors.auth", "django.contrib.messages.context_processors.messages"]}}]
""",
    "urls.py": """
from django.contrib import admin
from django.urls import path
import admin as own_admin, receivers, views
urlpatterns = [path("report/", views.report), path("news/", views.news), path("admin/", admin.site.urls)]
""",
}


@pytest.fixture
def project(tmp_path):
    """The files of the site."""
    files = dict(BEGUN)
    for name, text in BLOCKS:
        files[name] = files.get(name, "") + text
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for number, text in enumerate(re.findall(r"^ *```html\n(.*?)^ *```", DOCUMENT, re.DOTALL | re.MULTILINE)):
        (tmp_path / f"page{number}.html").write_text(text)
    return tmp_path


def run(project, *command, **environment):
    paths = [str(HERE / "src"), str(HERE.parent / "python/src"), str(project)]
    env = clean_environment(PYTHONPATH=":".join(paths), DJANGO_SETTINGS_MODULE="settings", **environment)
    ran = subprocess.run([sys.executable, *command], cwd=project, env=env, capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_every_block_is_of_a_file():
    assert len(BLOCKS) == DOCUMENT.count("```python\n") >= 8
    assert {"settings.py", "urls.py", "views.py", "receivers.py", "asgi.py", "admin.py", "test_timeout.py"} == {name for name, _ in BLOCKS}


def test_the_site_is_in_order_with_the_policy_beside_it(project, serve, directory):
    (directory / "policy.toml").write_text(POLICY.group(1))
    sidecar = serve("--dev", "--policy-file", str(directory / "policy.toml"))
    told = run(project, "-m", "django", "check", "--deploy", "--tag", "session_sidecar", SESSION_SIDECAR_TARGET=sidecar.tcp)
    assert "no issues" in told


def test_the_site_runs(project):
    program = """
import django
django.setup()
from django.template.loader import render_to_string
from django.contrib.auth.models import User
from django.test import RequestFactory
import asgi, urls
request = RequestFactory().get("/?reason=REVOKED")
request.user = User(username="ada")
print([render_to_string(f"page{number}.html", {"user": request.user}, request) for number in range(2)])
print(type(asgi.application).__name__, type(django.contrib.admin.site._registry[User]).__name__)
"""
    told = run(project, "-c", program)
    assert 'logout-url="/logout/"' in told and "by an administrator" in told and "EndedCloser Users" in told


def test_its_test_passes(project):
    told = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "django_session_sidecar.pytest_plugin", "test_timeout.py")
    assert "1 passed" in told


def test_the_examples_are_well_typed(project):
    (project / "mypy.ini").write_text((HERE.parent / "python/tests/mypy.ini").read_text() + TYPES)
    names = [name for name, _ in BLOCKS if name not in ("settings.py", "urls.py")]
    for name in names:
        text = "".join(text for each, text in BLOCKS if each == name)
        (project / name).write_text(text)
    paths = f"{HERE / 'src'}:{HERE.parent / 'python/src'}"
    run(project, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "/dev/null", *names, MYPYPATH=paths)
