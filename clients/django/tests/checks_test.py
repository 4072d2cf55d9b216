"""`manage.py check`, and what a page is given."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.template import Context, Template
from django.test import RequestFactory
from support.process import free_port

from django_session_sidecar import conf

RIGHT = {"EXPIRE_AFTER": 900, "WARN_AFTER": 780}


def said(capsys, *, deploy: bool = False) -> str:
    """What the checks of this package say."""
    try:
        call_command("check", tags=["session_sidecar"], deploy=deploy)
    except SystemCheckError as error:
        return str(error) + capsys.readouterr().err
    return capsys.readouterr().err


def test_a_site_whose_settings_are_those_of_the_policy_is_in_order(site, capsys):
    assert said(capsys) == "" and said(capsys, deploy=True) == ""
    assert site.live_sessions == 0, "what asked is gone"


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"EXPIRE_AFTER": 600}, "E006) EXPIRE_AFTER is 600 s, and idle_timeout of the policy 'default' of the sidecar is 900 s."),
        (RIGHT | {"WARN_AFTER": 840}, "E007) WARN_AFTER is 840 s, 60 s before the end; the policy 'default' of the sidecar warns 120 s before it."),
        (RIGHT | {"POLICY": "unheard-of"}, "E005) The sidecar lets no session begin"),
        (RIGHT | {"TENANT": "elsewhere"}, "E005) The sidecar lets no session begin"),
    ],
)
def test_a_mismatch_with_the_policy_is_an_error(site, settings, capsys, told, problem):
    settings.SESSION_SIDECAR = {"TARGET": site.process.tcp} | told
    assert problem in said(capsys)


def test_a_django_session_must_not_be_forgotten_first(site, settings, capsys):
    settings.SESSION_COOKIE_AGE = 3600
    assert "W005) SESSION_COOKIE_AGE is 3600 s, and absolute_timeout" in said(capsys)


def test_without_a_sidecar_only_deploy_says_so(settings, capsys):
    settings.SESSION_SIDECAR = RIGHT | {"TARGET": f"127.0.0.1:{free_port()}"}
    assert said(capsys) == ""
    assert "W004) The policy could not be compared" in said(capsys, deploy=True)


def test_a_site_that_cannot_show_who_it_is_is_told_by_deploy(serve, settings, capsys, directory):
    (directory / "token").write_text("dG9rZW4tb2YtdGhlLXNpdGU=")
    (directory / "wrong").write_text("c29tZWJvZHktZWxzZSdzLXRva2Vu")
    address = f"127.0.0.1:{free_port()}"
    serve("--dev", listen=[f"tcp://{address}?token-file={directory}/token"])
    right = {"TARGET": address, "TOKEN_FILE": str(directory / "token")}
    settings.SESSION_SIDECAR = right
    assert said(capsys, deploy=True) == ""
    settings.SESSION_SIDECAR = right | {"TOKEN_FILE": str(directory / "wrong")}
    assert "E009) The sidecar does not know this site: CALLER_NOT_AUTHENTICATED" in said(capsys, deploy=True)
    settings.SESSION_SIDECAR = RIGHT | right | {"TOKEN_FILE": "/none/such"}
    assert said(capsys) == ""
    assert "E008) The sidecar cannot be asked: token_file: /none/such cannot be read" in said(capsys, deploy=True)
    settings.SESSION_SIDECAR = right | {"TLS_CA_FILE": str(directory / "ca.crt")}
    assert "E008) The sidecar cannot be asked: tls_ca_file" in said(capsys, deploy=True)


@pytest.mark.parametrize("backend", ["fake", "off"])
def test_a_site_that_runs_without_judgement_is_warned_of(settings, capsys, backend):
    settings.SESSION_SIDECAR = {"BACKEND": backend}
    assert said(capsys) == "" and "W003" in said(capsys, deploy=True)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"EXPIRE_AFTR": 3}, "unknown key 'EXPIRE_AFTR': did you mean EXPIRE_AFTER?"),
        ({"expire_after": 3}, "did you mean EXPIRE_AFTER?"),
        ({"ZZZZ": 3}, "unknown key 'ZZZZ': known are ADMIN_TARGET, BACKEND,"),
        ({"BACKEND": "redis"}, "BACKEND must be 'grpc' or 'fake' or 'off'"),
        ({"FAIL": True}, "FAIL must be 'closed' or 'open'"),
        ({"ON_UNKNOWN": "allow"}, "ON_UNKNOWN must be 'adopt' or 'deny'"),
        ({"EXPIRE_AFTER": "15m"}, "EXPIRE_AFTER must be a number of seconds over 0"),
        ({"EXPIRE_AFTER": 0}, "EXPIRE_AFTER must be a number of seconds over 0"),
        ({"DEADLINE": None}, "DEADLINE must be a number of seconds over 0"),
        ({"PASSIVE_URLS": "/poll/"}, "PASSIVE_URLS must be a list of strings"),
        ({"TARGET": 50151}, "TARGET must be a string"),
        ({"WARN_AFTER": 60}, "WARN_AFTER needs EXPIRE_AFTER"),
        ({"EXPIRE_AFTER": 60, "WARN_AFTER": 60}, "WARN_AFTER must be less than EXPIRE_AFTER"),
        ([], "SESSION_SIDECAR must be a dict, not list"),
    ],
)
def test_a_wrong_setting_is_named(settings, capsys, told, problem):
    settings.SESSION_SIDECAR = told
    assert problem in said(capsys)
    with pytest.raises(ImproperlyConfigured):
        conf.settings()


def test_what_the_project_lacks_is_named(settings, capsys):
    settings.SESSION_SIDECAR = {}
    ours = settings.MIDDLEWARE[-1]
    settings.MIDDLEWARE = settings.MIDDLEWARE[:-1]
    assert "E002" in said(capsys)
    settings.MIDDLEWARE = [ours, *settings.MIDDLEWARE]
    assert said(capsys).count("E003") == 3
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[1:], ours]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    assert "E004" in said(capsys)
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    settings.ROOT_URLCONF = "django.contrib.auth.urls"
    settings.SESSION_SECURITY_WARN_AFTER = 540
    told = said(capsys)
    assert "W001" in told and "W002) SESSION_SECURITY_WARN_AFTER: settings of django-session-security are not read" in told


def rendered(text: str, path: str = "/") -> str:
    return Template("{% load session_sidecar %}" + text).render(Context({"request": RequestFactory().get(path), "evil": '"><script>'}))


def test_a_page_is_given_the_module(settings):
    assert rendered("{% session_sidecar %}") == '<script type="module" src="/-/session/sidecar.js"></script><session-sidecar></session-sidecar>'
    told = rendered('{% session_sidecar logout_url="/logout/" explicit_stay="" text_heading=evil %}')
    assert '<session-sidecar logout-url="/logout/" explicit-stay="" text-heading="&quot;&gt;&lt;script&gt;">' in told
    settings.SESSION_SIDECAR = {"BACKEND": "off"}
    assert rendered("{% session_sidecar %}") == ""
    assert 'src="/-/session/sidecar.js"' in rendered('{% session_sidecar src="/-/session/sidecar.js" %}'), "behind a gateway"


def test_the_login_page_says_why(settings):
    assert "longest time" in rendered("{% session_end_reason %}", "/login/?reason=ABSOLUTE_TIMEOUT")
    assert rendered("{% session_end_reason %}", "/login/?reason=<b>") == "" == rendered("{% session_end_reason %}")
