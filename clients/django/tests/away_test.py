"""Who is down, and what happens."""

import pytest
from conftest import SCRIPT, Browser
from django.contrib.sessions.models import Session as Row
from support.process import eventually

from session_sidecar import Live


def dead(site) -> None:
    """The sidecar is gone."""
    site.process.process.kill()
    site.process.process.wait()


def test_nobody_gets_in_while_the_sidecar_is_away(site, settings, logged_in):
    dead(site)
    page = logged_in.visit("/private/")
    assert page.status_code == 503 and page["Retry-After"] == "1" and page["Cache-Control"] == "no-store"
    assert page["Content-Type"].startswith("text/plain")
    told = logged_in.fetch("/fetched/")
    assert told.status_code == 503 and told.json()["error"] == "UNAVAILABLE"
    assert Row.objects.count() == 1, "nobody is logged out"
    assert logged_in.session_id


def test_a_login_fails_and_logs_nobody_in(site, settings, ada):
    browser, script = Browser(), Browser()
    dead(site)
    assert browser.visit("/login/").status_code == 200, "strangers are not judged"
    assert browser.log_in().status_code == 503
    assert script.post("/login/", {"username": "ada", "password": "a password"}, headers=SCRIPT).json()["error"] == "UNAVAILABLE"
    assert browser.visit("/private/").status_code == 302


def test_with_fail_open_people_go_on_and_are_adopted_when_it_is_back(site, settings, begin, ada, logged_in):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"FAIL": "open"}
    dead(site)
    assert logged_in.visit("/private/").content == b"ada None"
    newcomer = Browser()
    assert newcomer.log_in().status_code == 302
    assert newcomer.visit("/private/").status_code == 200
    back = begin()
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"TARGET": back.tcp}
    for browser in (logged_in, newcomer):
        assert browser.visit("/private/").status_code == 200
    assert back.metric("live_sessions") == 2


def test_with_fail_open_what_has_ended_stays_ended(site, settings, logged_in):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"FAIL": "open"}
    cookie = logged_in.session_id
    site.advance(minutes=15)
    assert logged_in.visit("/private/").status_code == 302
    dead(site)
    logged_in.cookies["sessionid"] = cookie
    assert logged_in.visit("/private/").status_code == 302


def test_a_logout_works_while_the_sidecar_is_away(site, logged_in, settings):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"FAIL": "open"}
    dead(site)
    assert logged_in.post("/logout/").status_code == 302
    assert Row.objects.count() == 0


def test_a_sidecar_without_room_is_as_good_as_away(settings, serve, ada, db):
    full = serve("--dev", "--max-sessions", "1")
    settings.SESSION_SIDECAR = {"TARGET": full.tcp, "DEADLINE": 20}
    first, second = Browser(), Browser()
    assert first.log_in().status_code == 302
    assert second.log_in().status_code == 503
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"FAIL": "open"}
    assert second.log_in().status_code == 302
    assert second.visit("/private/").content == b"ada None"
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"FAIL": "closed"}
    assert second.visit("/private/").status_code == 503
    assert first.visit("/private/").status_code == 200


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_a_wrong_listener_is_an_error_of_the_configuration(site, settings, logged_in, fail):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"TENANT": "elsewhere", "FAIL": fail}
    with pytest.raises(Exception, match="CALLER_NOT_ALLOWED"):
        logged_in.visit("/private/")


def test_with_backend_off_nothing_is_judged(site, settings, ada):
    settings.SESSION_SIDECAR = {"BACKEND": "off"}
    browser = Browser()
    assert browser.log_in().status_code == 302
    assert browser.visit("/private/").content == b"ada None"
    assert browser.visit("/long-work/").content == b"False"
    assert browser.visit("/-/session").json()["state"] == "NONE"
    assert browser.change("extend").status_code == 401
    assert browser.post("/logout/").status_code == 302
    assert site.live_sessions == 0


def test_no_session_id_is_written_anywhere(site, logged_in, caplog, capsys):
    was = logged_in.session_id
    answer = site.sidecar.check(was)
    assert isinstance(answer, Live)
    site.advance(minutes=15)
    logged_in.visit("/private/")
    logged_in.log_in()
    second = logged_in.session_id
    dead(site)
    logged_in.visit("/private/")
    logged_in.post("/logout/")
    assert eventually(lambda: "does not answer" in caplog.text, "it is told that the sidecar is away")
    written = caplog.text + "".join(capsys.readouterr()) + site.process.output()
    assert was not in written and second not in written


def test_while_the_sidecar_is_away_pages_are_told(site, logged_in):
    dead(site)
    for answer in (logged_in.get("/-/session"), logged_in.change("extend"), logged_in.change("leave")):
        assert answer.status_code == 503 and answer.json()["error"] == "UNAVAILABLE" and answer["Retry-After"]
