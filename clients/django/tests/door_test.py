"""What pages ask at the site's own origin: the words and rules of the sidecar's HTTP door."""


import pytest
from conftest import Browser, both

from session_sidecar import EndReason, Ref

pytestmark = both
CHANGES = ["extend", "activity", "leave", "hold", "release"]
BODIES = {"hold": {"id": "work", "ttl": 60}, "release": {"id": "work"}}


def test_the_state_is_told_and_asking_is_no_activity(site, logged_in):
    for _ in range(2):
        site.advance(minutes=7)
        told = logged_in.get("/-/session")
    session = told.json()
    assert told["Cache-Control"] == "no-store"
    assert session["state"] == "EXPIRING" and session["limit"] == "IDLE" and session["can_extend"] is True
    assert 59 < session["expires_in"] <= 60 and session["idle_timeout"] == 900 and session["login_url"] == "/login/"
    assert session["session_ref"] == site.sidecar.check(logged_in.session_id).session_ref
    assert logged_in.session_id not in told.content.decode()
    site.advance(minutes=1)
    over = logged_in.get("/-/session")
    assert over.json()["state"] == "ENDED" and over.json()["end"]["reason"] == "IDLE_TIMEOUT"
    assert over.cookies["sessionid"]["max-age"] == 0, "the cookie is taken back"
    assert "nothing had happened" in logged_in.visit("/login/").content.decode(), "and the login page says why"
    assert logged_in.get("/-/session").json() == {"state": "NONE", "can_extend": False, "version": 0, "presence": False, "login_url": "/login/"}


def test_the_person_stays(site, logged_in):
    site.advance(minutes=14)
    told = logged_in.change("extend").json()
    assert told["state"] == "ACTIVE" and 899 < told["expires_in"] <= 900
    assert logged_in.change("extend", {"wanted": 1800}).json()["expires_in"] > 1700
    for wanted in (0, -1, "soon", 10**12, True, float("nan")):
        refused = logged_in.change("extend", {"wanted": wanted})
        assert refused.status_code == 400 and "wanted must be a number of seconds" in refused.json()["message"]
    assert "no keys but wanted" in logged_in.change("extend", {"wished": 1}).json()["message"]


def test_input_is_reported(site, logged_in):
    site.advance(minutes=10)
    told = logged_in.change("activity", {"idle_for": 30, "visibility": "hidden"}).json()
    assert 869 <= told["expires_in"] <= 870, "the person was there, whatever may be seen now"
    assert logged_in.change("activity", {"idle_for": -1}).status_code == 400
    assert logged_in.change("activity", {"visibility": "half"}).status_code == 400


def test_a_page_holds_and_releases_its_own_work_only(site, logged_in):
    held = logged_in.change("hold", {"id": "upload", "ttl": 3600, "purpose": "an upload"}).json()
    assert held["granted_ttl"] == 300
    assert [hold.hold_id for hold in site.sidecar.check(logged_in.session_id).session.holds] == ["page.upload"]
    assert logged_in.change("release", {"id": "upload"}).status_code == 200
    assert site.sidecar.check(logged_in.session_id).session.holds == ()
    for body in ({}, {"id": "a b", "ttl": 1}, {"id": "a" * 41, "ttl": 1}, {"id": "a"}, {"id": "a", "ttl": 1, "purpose": "x" * 129}, {"id": 3, "ttl": 1}):
        assert logged_in.change("hold", body).status_code == 400
    for number in range(8):
        assert logged_in.change("hold", {"id": f"w{number}", "ttl": 60}).status_code == 200
    refused = logged_in.change("hold", {"id": "one-more", "ttl": 60})
    assert refused.status_code == 429 and refused.json()["error"] == "HOLD_CAP"


def test_a_body_is_read_with_care(site, logged_in):
    own = {"Origin": "http://testserver", "X-Session-Sidecar": "1"}
    for body, code in ((b"{", 400), (b"[]", 400), (b"\xff", 400), (b" " * 5000, 413), (b"null", 400)):
        assert logged_in.post("/-/session/extend", body, content_type="application/json", headers=own).status_code == code
    assert logged_in.post("/-/session/extend", b"", content_type="application/json", headers=own).status_code == 200


@pytest.mark.parametrize("verb", CHANGES)
def test_no_page_of_another_site_changes_anything(site, logged_in, verb):
    """The session's cookie comes with the request all the same."""
    site.advance(minutes=5)
    before = site.sidecar.check(logged_in.session_id).status
    body = BODIES.get(verb)
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver.evil.example"},
        {"Origin": "http://testserver:8080"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "", "Sec_Fetch_Site": "same-site"},
        {"Origin": "", "Sec_Fetch_Site": "none"},
    ):
        refused = logged_in.change(verb, body, **headers)
        assert refused.status_code == 403 and refused.json()["error"] == "FOREIGN_ORIGIN", headers
        assert "Access-Control-Allow-Origin" not in refused
    refused = logged_in.change(verb, body, Origin="", X_Session_Sidecar="")
    assert refused.status_code == 403, "a form of another site, in an old browser"
    assert logged_in.get(f"/-/session/{verb}").status_code == 405
    preflight = logged_in.options(f"/-/session/{verb}", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 405 and "Access-Control-Allow-Origin" not in preflight
    after = site.sidecar.check(logged_in.session_id).status
    assert (after.version, after.expire_time) == (before.version, before.expire_time)


@pytest.mark.parametrize("verb", [verb for verb in CHANGES if verb != "leave"])
def test_a_request_of_the_sites_own_pages_needs_our_header(site, logged_in, verb):
    refused = logged_in.change(verb, BODIES.get(verb), X_Session_Sidecar="")
    assert refused.status_code == 403 and refused.json()["error"] == "HEADER_MISSING"
    # Django's token is not asked for: the header takes its place.
    strict = Browser(enforce_csrf_checks=True)
    strict.cookies = logged_in.cookies
    assert strict.change(verb, BODIES.get(verb)).status_code == 200
    assert strict.change(verb, BODIES.get(verb), Origin="", Sec_Fetch_Site="same-origin").status_code == 200


def test_an_origin_that_the_settings_name_is_the_sites_own(site, settings, logged_in):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"ORIGINS": ["https://app.example"]}
    assert logged_in.change("extend", Origin="https://APP.example").status_code == 200
    assert logged_in.change("extend", Origin="http://app.example").status_code == 403


def test_login_and_logout_are_protected_as_ever(site, ada):
    strict = Browser(enforce_csrf_checks=True)
    assert strict.log_in().status_code == 403
    assert strict.post("/logout/").status_code == 403
    assert site.live_sessions == 0


@pytest.mark.parametrize("verb", CHANGES)
def test_nothing_can_be_done_without_a_live_session(site, logged_in, verb):
    assert Browser().change(verb, BODIES.get(verb)).json()["error"] == "SESSION_MISSING"
    site.advance(minutes=15)
    refused = logged_in.change(verb, BODIES.get(verb))
    assert refused.status_code == 401 and refused.json()["error"] == "SESSION_ENDED" and refused.json()["end"]["reason"] == "IDLE_TIMEOUT"
    assert refused.cookies["sessionid"]["max-age"] == 0


def test_the_module_is_the_sidecars_own(site, browser):
    from support import REPOSITORY

    answer = browser.get("/-/session/sidecar.js")
    assert answer.content == (REPOSITORY / "clients/browser/session-sidecar.js").read_bytes(), "copy it to clients/django"
    assert answer["Content-Type"] == "text/javascript; charset=utf-8" and answer["X-Content-Type-Options"] == "nosniff"
    assert browser.get("/-/session/sidecar.js", headers={"If-None-Match": f"W/{answer['ETag']}"}).status_code == 304


def test_under_wsgi_a_stream_is_a_poll_that_the_browser_repeats(site, settings, logged_in):
    answer = logged_in.get("/-/session/events?page=abc", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer["Content-Type"] == "text/event-stream"
    assert answer.content.startswith(b"retry: 30000\n\nevent: state\ndata: {") and b'"state": "ACTIVE"' in answer.content
    assert logged_in.get("/-/session/events", headers={"Origin": "https://evil.example"}).status_code == 403
    assert logged_in.get("/-/session/events?page=a+b").status_code == 400
    site.advance(minutes=15)
    assert logged_in.get("/-/session/events").status_code == 401


def test_an_open_page_is_present_and_a_closed_browser_ends_the_session(site, settings, ada):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"POLICY": "present"}
    browser = Browser()
    browser.log_in()
    assert b'"presence": true' in browser.get("/-/session/events?page=abc").content
    assert browser.get("/-/session").json()["presence"] is True
    assert browser.change("leave?page=abc", X_Session_Sidecar="").status_code == 200, "a beacon"
    ref = site.sidecar.check(browser.session_id).session_ref
    site.advance(seconds=31)
    assert site.sidecar.check(Ref(ref)).reason is EndReason.BROWSER_CLOSED


def test_a_stranger_is_not_sent_to_the_login_page_by_the_door(site, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    browser = Browser()
    assert browser.get("/-/session").json()["state"] == "NONE"
    assert browser.get("/-/session/sidecar.js").status_code == 200
    assert browser.visit("/").status_code == 302
