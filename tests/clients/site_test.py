"""What a site behind the Java servlet filter, or the Ruby middleware, does: the same in either."""

import re
import time
from pathlib import Path

import pytest
from conftest import ALL_VERBS, POLICY, SITES
from support.process import Sidecar as Process
from support.process import eventually

PATIENT = [kind for kind in SITES if kind != "java-docs"]
every_site = pytest.mark.parametrize("kind", PATIENT)
of_java = pytest.mark.parametrize("kind", [kind for kind in PATIENT if kind.startswith("java")])


@every_site
def test_a_login_begins_a_session_with_a_new_id(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.click("/public")
    assert ada.click("/page").headers["location"].endswith("/login")
    before = dict(ada.cookies)
    assert ada.post("/login", user="ada").status == 204
    assert ada.cookies and ada.cookies != before
    assert ada.click("/page").text == "ada 900"
    (session,) = here.sessions("ada")
    assert session.policy == "default"


@every_site
def test_over_a_unix_socket(world, kind):
    here = world(kind, over="uds")
    ada = here.browser()
    ada.post("/login", user="ada")
    assert ada.click("/page").text == "ada 900"


@every_site
def test_clicks_count_and_polls_and_prefetches_do_not(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    here.advance(5)
    assert ada.script("/poll").text == "ada 600"
    assert ada.click("/page", **{"Sec-Purpose": "prefetch"}).text == "ada 600"
    assert ada.click("/page").text == "ada 900"
    here.advance(15)
    assert ada.script("/poll").status == 401


@every_site
def test_the_end_is_told_with_its_reason_and_the_cookie_is_taken_back(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    here.advance(15)
    refused = ada.click("/page")
    assert (refused.status, refused.headers["location"], refused.taken_back) == (303, "/login?reason=IDLE_TIMEOUT", True)
    assert refused.headers["cache-control"] == "no-store"
    assert not ada.cookies
    assert ada.click("/page").headers["location"].endswith("/login")
    assert ada.post("/login", user="ada").status == 204
    assert ada.click("/page").text == "ada 900"


@every_site
def test_a_script_is_told_in_json(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    (session,) = here.sessions("ada")
    with here.desk() as desk:
        desk.end_sessions(subject="ada", actor_id="desk-7", note="phone was stolen")
    refused = ada.script("/page")
    assert (refused.status, refused.taken_back) == (401, True)
    told = refused.json()
    assert told.pop("message") == "the session has ended because it was revoked; send the person to the login page"
    assert told["end"].pop("end_time").endswith("Z")
    assert told == {
        "error": "SESSION_ENDED",
        "login_url": "/login",
        "session_ref": session.status.session_ref,
        "end": {"reason": "REVOKED", "message": "because it was revoked"},
    }


@every_site
def test_a_logout_ends_the_session(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    kept = dict(ada.cookies)
    assert ada.post("/logout").status == 204
    assert here.ends("ada") == [("LOGOUT", "USER", "ada")]
    ada.cookies = kept
    assert ada.click("/public").text in ("hello null", "hello ")
    assert ada.click("/page").headers["location"].endswith("/login"), "who has logged out is told nothing"


@every_site
def test_a_login_with_the_cookie_of_a_session_that_is_over(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    here.advance(15)
    assert ada.post("/login", user="ada").status == 204, "what was typed is not thrown away"
    assert ada.click("/page").text == "ada 900"
    assert here.ends("ada") == [("IDLE_TIMEOUT", "POLICY", "")]


@of_java
def test_a_new_id_goes_on_as_the_same_session(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    (first,) = here.sessions("ada")
    here.advance(5)
    before = dict(ada.cookies)
    assert ada.post("/rename").status == 204
    assert ada.cookies != before
    assert ada.click("/page").text == "ada 900"
    (session,) = here.sessions("ada")
    assert session.status.session_ref != first.status.session_ref
    assert session.authentication_time == first.authentication_time
    assert [reason for reason, *_ in here.ends("ada")] == ["ROTATED"]
    with here.sidecar() as sidecar:
        assert sidecar.check(ada.cookies["JSESSIONID"]).session.predecessor_ref == first.status.session_ref


@every_site
def test_a_new_login_of_the_same_person_begins_both_limits_anew(world, kind):
    here = world(kind, policy=POLICY.replace("8h", "20m"))
    ada = here.browser()
    ada.post("/login", user="ada")
    here.advance(12)
    assert ada.click("/page").text == "ada 480"
    assert ada.post("/again").status == 204
    assert ada.click("/page").text == "ada 900"
    assert len(here.sessions("ada")) == 1


@every_site
def test_another_person_over_the_same_session(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    assert ada.post("/login", user="bob").status == 204
    assert ada.click("/page").text == "bob 900"
    assert (len(here.sessions("ada")), len(here.sessions("bob"))) == (0, 1)
    assert ("LOGOUT", "USER", "ada") in here.ends("ada")


@every_site
def test_a_newer_session_takes_the_place_of_the_first(world, kind):
    here = world(kind, policy=POLICY + 'max_sessions_per_subject = 1\nat_subject_cap = "end-oldest"\n')
    ada, elsewhere = here.browser(), here.browser()
    ada.post("/login", user="ada")
    elsewhere.post("/login", user="ada")
    assert ada.click("/page").headers["location"] == "/login?reason=SUPERSEDED"
    assert elsewhere.click("/page").status == 200


@every_site
def test_a_login_that_the_policy_refuses(world, kind):
    here = world(kind, policy=POLICY + 'max_sessions_per_subject = 1\nat_subject_cap = "refuse"\n')
    ada, elsewhere = here.browser(), here.browser()
    assert ada.post("/login", user="ada").status == 204
    assert elsewhere.post("/login", user="ada").status == 403
    assert elsewhere.click("/page").headers["location"].endswith("/login")
    assert ada.click("/page").status == 200


@every_site
def test_a_session_for_reading(world, kind):
    here = world(kind, policy='[policy.default]\npassive = true\nabsolute_timeout = "8h"\n')
    ada = here.browser()
    ada.post("/login", user="ada")
    assert ada.click("/page").status == 200
    assert ada.post("/rename").status == 403


@every_site
def test_a_sidecar_that_came_back_with_an_empty_memory(world, kind, binary, directory):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    restart(here, binary, directory)
    eventually(lambda: ada.click("/page").text == "ada 900", "she is adopted")
    assert len(here.sessions("ada")) == 1


@every_site
def test_while_nobody_knows_nobody_goes_on(world, kind, binary, directory):
    here = world(kind)
    ada, stranger = here.browser(), here.browser()
    ada.post("/login", user="ada")
    here.process.stop()
    refused = ada.click("/page")
    assert (refused.status, refused.headers["retry-after"], refused.taken_back) == (503, "1", False)
    assert ada.script("/page").json()["error"] == "UNAVAILABLE"
    assert stranger.click("/public").status == 200
    assert stranger.post("/login", user="bob").status == 503
    assert stranger.click("/page").headers["location"].endswith("/login"), "nobody is logged in by it"
    assert len(re.findall(r"session-sidecar at \S+ does not answer", here.site.output())) == 1
    restart(here, binary, directory)
    eventually(lambda: ada.click("/page").status == 200, "it is back")
    assert here.site.output().count("answers again") == 1


@every_site
def test_while_nobody_knows_everybody_goes_on_with_fail_open(world, kind, binary, directory):
    here = world(kind, fail="open")
    ada, bob, cleo = here.browser(), here.browser(), here.browser()
    ada.post("/login", user="ada")
    cleo.post("/login", user="cleo")
    with here.desk() as desk:
        desk.end_sessions(subject="cleo")
    assert cleo.script("/page").status == 401
    here.process.stop()
    assert ada.click("/page").text == "ada ?"
    assert bob.post("/login", user="bob").status == 204
    assert bob.click("/page").text == "bob ?"
    assert cleo.script("/page").status != 200, "what has ended stays ended"
    restart(here, binary, directory)
    eventually(lambda: bob.click("/page").text == "bob 900", "he is adopted")


def test_a_sidecar_that_stands_still_costs_a_quarter_of_a_second(world):
    here = world("java-docs")
    ada = here.browser()
    ada.post("/login", user="ada")
    with here.process.standing_still():
        began = time.monotonic()
        assert ada.click("/page").status == 503
        assert 0.2 < time.monotonic() - began < 5


@of_java
def test_a_session_that_the_container_ends(world, kind):
    here = world(kind)
    ada = here.browser()
    ada.post("/login", user="ada")
    ada.post("/short")
    eventually(lambda: here.ends("ada") == [("REVOKED", "SYSTEM", "")], "the container's own limit ends it")
    assert ada.click("/page").headers["location"] == "/login?reason=REVOKED"
    assert not ada.cookies


@every_site
def test_a_cookie_that_somebody_made_up(world, kind):
    here = world(kind)
    somebody = here.browser()
    somebody.post("/login", user="ada")
    (name,) = somebody.cookies
    for value in ("x", "never-issued-0123456789-abcdef", "%00" * 20):
        somebody.cookies = {name: value}
        assert somebody.click("/public").status == 200
        assert somebody.click("/page").headers["location"].endswith("/login")


def restart(here, binary: Path, directory: Path) -> None:
    """Another sidecar takes the place of the one before: same port, nothing known."""
    old = here.process
    if old.process.poll() is None:
        old.stop()
    home = directory / "again"
    home.mkdir()
    arguments = ["--dev", "--policy-file", str(directory / "policy.toml")]
    here.process = Process(binary, home, *arguments, listen=[f"tcp://127.0.0.1:{old.port}{ALL_VERBS}"])
    here.process.port = old.port
