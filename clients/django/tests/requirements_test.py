"""What the issue's R1 to R5 ask, by HTTP: a person and their browser, a site, a sidecar."""

import asyncio

import pytest
from conftest import NAVIGATION, Browser, both
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session as Row
from django.test import AsyncClient

from django_session_sidecar import session_ended
from session_sidecar import EndReason, Live, Ref

pytestmark = both
IDLE = "nothing had happened for a while"


def test_r1_the_cookie_has_no_age(logged_in):
    assert logged_in.cookies["sessionid"]["max-age"] == "" and logged_in.cookies["sessionid"]["expires"] == ""
    assert logged_in.visit("/private/").status_code == 200
    assert logged_in.cookies["sessionid"]["max-age"] == ""


def test_r2_it_ends_after_inactivity_and_slides(site, logged_in):
    for _ in range(4):
        site.advance(minutes=14)
        assert logged_in.visit("/private/").status_code == 200
    site.advance(minutes=15)
    assert logged_in.visit("/private/")["Location"].startswith("/login/")


@pytest.mark.parametrize("path", ["/poll/", "/poll/class/", "/passive/by-path/", "/passive/by-name/"])
def test_r2_what_is_passive_keeps_nobody_logged_in(site, logged_in, path):
    for _ in range(2):
        site.advance(minutes=7)
        assert logged_in.fetch(path).status_code == 200
    site.advance(minutes=1)
    assert logged_in.visit("/private/").status_code == 302


def test_r2_a_visible_polling_tab_without_input_ends(site, logged_in):
    """Its page has the module: from the first report of input on what only scripts ask for is no activity."""
    assert logged_in.change("activity", {"idle_for": 0, "visibility": "visible"}).status_code == 200
    answers = []
    for _ in range(16):
        site.advance(minutes=1)
        answers.append(logged_in.fetch("/fetched/").status_code)
    assert answers == [200] * 14 + [401, 302]  # And the next one comes without a cookie: nobody is logged in.


def test_r2_a_prefetch_is_no_activity(site, logged_in):
    site.advance(minutes=14)
    prefetch = NAVIGATION | {"Sec-Purpose": "prefetch;prerender"}
    assert logged_in.get("/private/", headers=prefetch).status_code == 200
    site.advance(minutes=1)
    assert logged_in.visit("/private/").status_code == 302


def test_r3_a_person_is_told_why_and_one_who_never_was_logged_in_is_not(site, logged_in):
    site.advance(minutes=15)
    login = logged_in.get("/private/", headers=NAVIGATION, follow=True)
    assert login.redirect_chain == [("/login/?next=/private/", 302)]
    assert login.content.decode().count(IDLE) == 1
    assert "while" not in logged_in.visit("/login/").content.decode(), "it is said once"
    stranger = Browser().get("/private/", headers=NAVIGATION, follow=True)
    assert "logged out" not in stranger.content.decode()


def test_r3_without_messages_the_query_says_why(site, settings, logged_in):
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "messages" not in each]
    site.advance(minutes=15)
    browser = Browser()
    browser.cookies = logged_in.cookies
    login = browser.get("/private/", headers=NAVIGATION, follow=True)
    assert login.redirect_chain == [("/login/?reason=IDLE_TIMEOUT&next=/private/", 302)]
    assert login.content.decode().count(IDLE) == 1
    assert "script" not in Browser().get("/login/?reason=<script>").content.decode().partition("<form")[0]


def test_r3_the_login_page_itself_says_it(site, logged_in):
    site.advance(minutes=15)
    page = logged_in.visit("/login/")
    assert page.status_code == 200 and page.content.decode().count(IDLE) == 1


def test_r3_other_reasons(site, ada, logged_in):
    site.sidecar.end(logged_in.session_id, reason=EndReason.REVOKED, note="by support")
    page = logged_in.get("/private/", headers=NAVIGATION, follow=True).content.decode()
    assert "by an administrator" in page and "support" not in page


def test_r3_a_script_is_told_in_json_and_the_next_page_says_it_too(site, logged_in):
    was = logged_in.session_id
    site.advance(minutes=15)
    refused = logged_in.fetch("/fetched/")
    assert refused.status_code == 401 and refused["Cache-Control"] == "no-store"
    told = refused.json()
    assert told["error"] == "SESSION_ENDED" and told["login_url"] == "/login/" and told["session_ref"]
    assert told["end"]["reason"] == "IDLE_TIMEOUT" and told["end"]["message"] == "by inactivity" and told["end"]["end_time"].endswith("Z")
    assert was not in refused.content.decode()
    assert refused.cookies["sessionid"]["max-age"] == 0, "the cookie is taken back"
    assert IDLE in logged_in.get("/private/", headers=NAVIGATION, follow=True).content.decode()


def test_r3_a_public_page_is_open_to_whoever_was_logged_out(site, logged_in):
    site.advance(minutes=15)
    assert logged_in.visit("/").content == b"anybody, False"
    assert not logged_in.session_id


def test_r3_the_end_is_told_of_a_django_session_that_is_gone(site, logged_in):
    """Another request of the same browser, at the same moment, has flushed it."""
    site.advance(minutes=15)
    Row.objects.all().delete()
    assert IDLE in logged_in.get("/private/", headers=NAVIGATION, follow=True).content.decode()


def test_r5_a_view_that_works_long_holds_the_session(site, logged_in, monkeypatch):
    def work(request):
        site.advance(minutes=4)
        held = site.sidecar.check(logged_in.session_id).session.holds
        assert [(each.purpose, each.kind) for each in held] == [("a report", "WORK")]

    monkeypatch.setattr("site_urls.LONG_WORK", work)
    site.advance(minutes=11)
    assert logged_in.visit("/long-work/").content == b"True"
    site.advance(minutes=14)
    assert logged_in.visit("/private/").status_code == 200, "a full idle timeout follows"
    assert site.sidecar.check(logged_in.session_id).session.holds == ()
    assert Browser().visit("/long-work/async/").content == b"False", "of a stranger there is nothing to hold"


# ---- Login, new keys, logout ----


def test_the_same_person_logs_in_again_in_the_same_browser_without_a_loop_under_a_new_id(site, logged_in):
    first = logged_in.session_id
    site.advance(minutes=15)
    # LoginView has redirect_authenticated_user=True: it must not take them for logged in.
    login = logged_in.get("/private/", headers=NAVIGATION, follow=True)
    assert [path for path, _ in login.redirect_chain] == ["/login/?next=/private/"] and b"form" in login.content
    assert logged_in.log_in()["Location"] == "/private/"
    assert logged_in.visit("/private/").status_code == 200
    assert logged_in.session_id != first
    assert site.sidecar.check(first).reason is EndReason.IDLE_TIMEOUT


def test_a_login_form_that_was_open_since_before_the_end_works(site, logged_in):
    first = logged_in.session_id
    site.advance(minutes=15)
    assert logged_in.log_in()["Location"] == "/private/"
    assert logged_in.session_id not in ("", first) and logged_in.visit("/private/").status_code == 200


def test_a_login_makes_an_anonymous_session_one_of_the_sidecar(site, ada, browser):
    assert browser.visit("/login/").status_code == 200
    assert site.live_sessions == 0
    browser.log_in()
    answer = site.sidecar.check(browser.session_id)
    assert isinstance(answer, Live) and answer.session.subject == str(ada.pk)


def test_the_same_person_logs_in_again_while_logged_in_and_gets_a_new_id(site, logged_in, ada):
    first = logged_in.session_id
    began = site.sidecar.check(first).session.authentication_time
    site.advance(minutes=10)
    assert logged_in.visit("/login-again/").status_code == 200  # Django itself keeps the key here.
    second = logged_in.session_id
    assert second != first
    assert site.sidecar.check(first).reason is EndReason.ROTATED
    assert site.sidecar.check(second).session.authentication_time > began, "both deadlines begin anew"
    assert logged_in.visit("/private/").status_code == 200


def test_a_session_that_ends_while_the_person_logs_in_again_is_followed_by_a_new_one(site, logged_in, monkeypatch):
    first = logged_in.session_id
    monkeypatch.setattr("site_urls.LONG_WORK", lambda request: site.sidecar.end(first))
    assert logged_in.visit("/login-again/").status_code == 200
    assert site.sidecar.check(first).reason is EndReason.LOGOUT
    assert site.sidecar.check(logged_in.session_id).session.predecessor_ref is None
    assert logged_in.visit("/private/").status_code == 200


def test_a_password_that_is_changed_as_the_session_ends_revives_nothing(site, logged_in, monkeypatch):
    first = logged_in.session_id

    def work(request):
        site.sidecar.end(first)

    monkeypatch.setattr("site_urls.LONG_WORK", work)
    assert logged_in.visit("/change-password/").status_code == 200
    assert site.sidecar.check(first).reason is EndReason.LOGOUT
    assert not logged_in.session_id
    assert logged_in.visit("/private/").status_code == 302 and site.live_sessions == 0


def test_another_person_logs_in_and_nothing_of_the_former_session_goes_on(site, logged_in):
    User.objects.create_user("bob")
    first = logged_in.session_id
    assert logged_in.visit("/login-again/?as=bob").status_code == 200
    assert logged_in.session_id != first
    assert site.sidecar.check(first).reason is EndReason.LOGOUT
    assert logged_in.visit("/private/").content.startswith(b"bob")


def test_a_changed_password_gives_a_new_id_that_goes_on(site, logged_in):
    first = logged_in.session_id
    site.advance(minutes=10)
    assert logged_in.visit("/change-password/").status_code == 200
    second = logged_in.session_id
    assert second != first
    site.advance(seconds=10)
    old = site.sidecar.check(first)
    new = site.sidecar.check(second)
    assert old.reason is EndReason.ROTATED and old.successor_ref == new.session_ref
    assert new.session.authentication_time < new.status.server_time.replace(microsecond=0) and new.session.predecessor_ref == old.session_ref
    assert logged_in.visit("/private/").status_code == 200


def test_a_password_that_was_changed_elsewhere_ends_the_session_here(site, ada, logged_in):
    ref = site.sidecar.check(logged_in.session_id).session_ref
    ada.set_password("changed")
    ada.save()
    assert logged_in.visit("/private/").status_code == 302
    assert site.sidecar.check(Ref(ref)).reason is EndReason.REVOKED


def test_logout_ends_it_and_the_site_hears_of_it(site, logged_in):
    told = []

    def hear(**arguments):
        told.append((arguments["session_ref"], arguments["reason"], arguments["user_id"]))

    session_ended.connect(hear)
    was, user = logged_in.session_id, str(User.objects.get().pk)
    assert logged_in.post("/logout/", headers=NAVIGATION)["Location"] == "/"
    answer = site.sidecar.check(was)
    assert (answer.reason, answer.actor, answer.end.actor_id) == ("LOGOUT", "USER", user)
    assert told == [(answer.session_ref, "LOGOUT", user)]
    session_ended.disconnect(hear)


def test_who_logs_out_is_not_told_that_they_have(site, logged_in):
    """Not even if the page that they left reports their last input after that."""
    cookie = logged_in.session_id
    logged_in.post("/logout/", headers=NAVIGATION)
    logged_in.cookies["sessionid"] = cookie
    assert logged_in.change("activity", {"idle_for": 1}).json()["end"]["reason"] == "LOGOUT"
    assert "logged out" not in logged_in.visit("/login/").content.decode()


def test_a_login_that_the_policy_refuses_logs_nobody_in(site, settings, ada):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"POLICY": "one"}
    first, second = Browser(), Browser()
    assert first.log_in().status_code == 302
    assert second.log_in().status_code == 403
    assert second.visit("/private/").status_code == 302
    assert first.visit("/private/").status_code == 200


def test_a_newer_login_takes_the_place_of_an_older_one_and_says_so(site, settings, ada):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"POLICY": "newest"}
    first, second = Browser(), Browser()
    first.log_in()
    second.log_in()
    assert "logged in elsewhere" in first.get("/private/", headers=NAVIGATION, follow=True).content.decode()
    assert second.visit("/private/").status_code == 200


# ---- asyncio ----


@pytest.mark.django_db(transaction=True)
def test_an_asynchronous_site_is_judged_the_same(site):
    User.objects.create_user("ada", password="a password")
    told = []

    def hear(user_id, reason, **_):
        told.append((User.objects.get(pk=user_id).username, reason))  # A receiver may ask the database.

    session_ended.connect(hear)

    async def visit() -> None:
        client = AsyncClient()
        answer = await client.post("/login/", {"username": "ada", "password": "a password"}, headers=NAVIGATION)
        assert answer.status_code == 302
        assert (await client.get("/whoami/", headers=NAVIGATION)).content == b"ada True"
        assert (await client.get("/long-work/async/", headers=NAVIGATION)).content == b"True"
        await asyncio.to_thread(site.advance, minutes=15)
        assert (await client.get("/whoami/", headers=NAVIGATION)).content == b"AnonymousUser False"
        assert "sessionid" not in client.cookies or not client.cookies["sessionid"].value
        assert IDLE in (await client.get("/login/", headers=NAVIGATION)).content.decode()

    asyncio.run(visit())
    session_ended.disconnect(hear)
    assert told == [("ada", "IDLE_TIMEOUT")]


@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "file"])
def test_any_store_of_django_sessions_with_a_key_will_do(site, settings, ada, engine):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    browser = Browser()
    browser.log_in()
    first = browser.session_id
    assert browser.visit("/change-password/").status_code == 200 and browser.session_id != first
    assert browser.visit("/private/").status_code == 200
    site.advance(minutes=15)
    assert IDLE in browser.get("/private/", headers=NAVIGATION, follow=True).content.decode()
    assert not browser.session_id


def test_a_session_for_reading_only_changes_nothing(site, settings, ada):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"POLICY": "display"}
    browser = Browser()
    browser.log_in()
    site.advance(hours=10)
    assert browser.visit("/private/").status_code == 200
    assert browser.post("/private/", headers=NAVIGATION).status_code == 403
