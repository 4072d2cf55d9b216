"""A Django session that the sidecar does not know: the site is just switched on, or the sidecar has lost its memory."""

import re
import time

import pytest
from conftest import NAVIGATION, Browser, Site
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session as Row
from django.utils import timezone

from django_session_sidecar import session_adopted
from django_session_sidecar.tracking import STAMPS
from session_sidecar import Live, Sidecar


@pytest.fixture
def before(site: Site, settings, ada: User) -> Browser:
    """A browser that logged in before the site was switched on."""
    on = settings.SESSION_SIDECAR
    settings.SESSION_SIDECAR = on | {"BACKEND": "off"}
    browser = Browser()
    browser.force_login(ada)
    assert STAMPS not in browser.session
    assert browser.visit("/private/").content == b"ada None"
    settings.SESSION_SIDECAR = on
    return browser


def stamp(browser: Browser, *, login: float, seen: float) -> None:
    """As if the person had logged in and been active so many seconds ago."""
    session = browser.session
    session[STAMPS] = {"login": int(time.time() - login), "seen": int(time.time() - seen)}
    session.save()


def test_it_goes_on_under_the_sidecar(site, before, ada):
    told = []

    def hear(**arguments):
        told.append((arguments["session_ref"], arguments["user_id"]))

    session_adopted.connect(hear)
    User.objects.update(last_login=timezone.now() - timezone.timedelta(hours=3))
    page = before.visit("/private/")
    session_adopted.disconnect(hear)
    assert page.status_code == 200
    answer = site.sidecar.check(before.session_id)
    assert isinstance(answer, Live) and answer.session.subject == str(ada.pk)
    ago = answer.session.create_time - answer.session.authentication_time
    assert ago >= timezone.timedelta(hours=3), "the best that is known of the login"
    assert told == [(answer.session_ref, str(ada.pk))]
    assert before.cookies["sessionid"]["max-age"] == "", "and its cookie has no age any more"


def test_a_poll_adopts_and_is_no_activity(site, before):
    stamp(before, login=3600, seen=600)
    assert before.fetch("/poll/").status_code == 200
    session = site.sidecar.check(before.session_id).session
    assert (session.create_time - session.last_activity_time).total_seconds() >= 600


@pytest.mark.parametrize(
    ("login", "seen", "why"),
    [(3600, 16 * 60, "nothing had happened"), (13 * 3600, 60, "longest time since your login"), (13 * 3600, 3600, "logged out because")],
)
def test_it_passes_no_limit(site, before, login, seen, why):
    stamp(before, login=login, seen=seen)
    page = before.get("/private/", headers=NAVIGATION, follow=True)
    assert page.redirect_chain and why in page.content.decode()
    assert site.live_sessions == 0


def test_a_restart_of_a_sidecar_without_a_store_logs_nobody_out_nor_gives_anybody_more_time(site, settings, begin, logged_in):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"TARGET": begin().tcp}
    stamp(logged_in, login=3600, seen=5)
    assert logged_in.visit("/private/").status_code == 200
    stamp(logged_in, login=3600, seen=1000)
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"TARGET": begin().tcp}
    assert logged_in.visit("/private/").status_code == 302


def test_two_requests_that_adopt_at_the_same_moment_both_go_on(site, before, monkeypatch, ada):
    create = Sidecar.create

    def second(self, **named):
        create(site.sidecar, **named)  # The other request was faster.
        return create(self, **named)

    monkeypatch.setattr(Sidecar, "create", second)
    assert before.visit("/private/").status_code == 200
    assert site.live_sessions == 1


def test_it_is_refused_with_deny(site, settings, before):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"ON_UNKNOWN": "deny"}
    page = before.get("/private/", headers=NAVIGATION, follow=True)
    assert "Your session is over" in page.content.decode()
    assert site.live_sessions == 0


def test_one_that_may_not_be_adopted_is_over(site, settings, before, ada):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"POLICY": "one"}
    Browser().force_login(ada)
    page = before.get("/private/", headers=NAVIGATION, follow=True)
    assert "Your session is over" in page.content.decode()


def test_what_ended_is_not_adopted(site, logged_in):
    site.advance(minutes=15)
    stamp(logged_in, login=60, seen=1)
    assert logged_in.visit("/private/").status_code == 302


def test_last_seen_is_written_seldom_and_kept_near(site, logged_in):
    def saves():
        return sum(bool(re.match(r'UPDATE "django_session"', query["sql"])) for query in asked)

    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as asked:
        for _ in range(3):
            logged_in.visit("/private/")
        assert saves() == 0
        stamp(logged_in, login=600, seen=46)  # A twentieth of the idle timeout is 45 s.
        before = saves()
        logged_in.fetch("/poll/")
        logged_in.get("/-/session")
        assert saves() == before, "a poll is not the person"
        logged_in.visit("/private/")
        logged_in.visit("/private/")
        assert saves() == before + 1
    stamps = logged_in.session[STAMPS]
    assert stamps["seen"] - stamps["login"] >= 599, "the login stays what it was"
    for verb in ("extend", "activity"):
        stamp(logged_in, login=600, seen=46)
        logged_in.change(verb)
        assert logged_in.session[STAMPS]["seen"] >= stamps["seen"], "that is the person"


def test_a_session_that_is_gone_when_it_is_stamped_is_no_error(site, logged_in, monkeypatch):
    stamp(logged_in, login=600, seen=100)
    from django.contrib.sessions.backends.db import SessionStore

    save = SessionStore.save

    def late(self, *arguments, **named):
        Row.objects.all().delete()
        return save(self, *arguments, **named)

    monkeypatch.setattr(SessionStore, "save", late)
    assert logged_in.visit("/").status_code == 200


def test_a_stranger_and_a_made_up_cookie_are_nobodys(site, browser):
    assert browser.visit("/").content == b"anybody, False"
    assert "Cookie" not in browser.visit("/about/").get("Vary", ""), "caches may keep it"
    for cookie in ("x", "a" * 32, "a" * 300, "ü", "null"):
        browser.cookies["sessionid"] = cookie
        assert browser.visit("/").content == b"anybody, False"
    assert Row.objects.count() == 0 and site.live_sessions == 0
