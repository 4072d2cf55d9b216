"""The admin's page "sessions of this user"."""

import pytest
from conftest import PATIENT, POLICY, Browser, Site
from django.contrib.auth.models import Permission, User
from support.certificates import Authority
from support.process import free_port

from session_sidecar import EndReason, Sidecar


@pytest.fixture
def site(serve, directory, settings, db):
    """One whose sidecar has a listener for support staff."""
    (directory / "policy.toml").write_text(POLICY)
    port, admin = free_port(), free_port()
    listen = [f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{admin}?verbs=admin"]
    process = serve("--dev", "--policy-file", str(directory / "policy.toml"), listen=listen)
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"TARGET": f"127.0.0.1:{port}", "ADMIN_TARGET": f"127.0.0.1:{admin}"}
    with Sidecar(f"127.0.0.1:{port}", deadline=PATIENT) as client:
        yield Site(client, process)


@pytest.fixture
def staff(site) -> Browser:
    """Somebody of support."""
    User.objects.create_superuser("root", password="a password")
    browser = Browser()
    browser.log_in("root")
    return browser


def page_of(user: User) -> str:
    return f"/admin/auth/user/{user.pk}/sessions/"


def test_sessions_are_shown_and_one_is_ended(site, ada, staff):
    laptop, phone = Browser(), Browser()
    laptop.log_in(), phone.log_in()
    assert page_of(ada) in staff.visit(f"/admin/auth/user/{ada.pk}/change/").content.decode()
    ref = site.sidecar.check(phone.session_id).session_ref
    page = staff.visit(page_of(ada)).content.decode()
    assert ref in page and site.sidecar.check(laptop.session_id).session_ref in page
    assert phone.session_id not in page and laptop.session_id not in page
    answer = staff.post(page_of(ada), {"ref": ref}, follow=True)
    assert "1 sessions were ended" in answer.content.decode()
    over = site.sidecar.check(phone.session_id)
    assert (over.reason, over.actor, over.end.actor_id, over.end.note) == (EndReason.REVOKED, "ADMIN", "root", "Django admin")
    assert phone.visit("/private/").status_code == 302
    assert laptop.visit("/private/").status_code == 200
    assert "ended already" in staff.post(page_of(ada), {"ref": ref}, follow=True).content.decode()
    assert laptop.visit("/private/").status_code == 200


def test_all_are_ended(site, ada, staff):
    browser = Browser()
    browser.log_in()
    staff.post(page_of(ada), {"all": ""})
    assert browser.visit("/private/").status_code == 302
    assert "No session" in staff.visit(page_of(ada)).content.decode()
    assert staff.visit("/private/").status_code == 200


def test_it_needs_a_csrf_token_and_the_right_to_change_users(site, ada, staff):
    browser = Browser()
    browser.log_in()
    strict = Browser(enforce_csrf_checks=True)
    strict.cookies = staff.cookies
    assert strict.post(page_of(ada), {"all": ""}).status_code == 403
    viewer = User.objects.create_user("viewer", password="a password", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_user"))
    looking = Browser()
    looking.log_in("viewer")
    assert looking.visit(page_of(ada)).status_code == 200
    assert looking.post(page_of(ada), {"all": ""}).status_code == 403
    assert browser.visit(page_of(ada)).status_code == 302, "no staff"
    assert browser.visit("/private/").status_code == 200


def test_without_admin_target_there_is_no_page(site, ada, staff, settings):
    settings.SESSION_SIDECAR = {key: value for key, value in settings.SESSION_SIDECAR.items() if key != "ADMIN_TARGET"}
    assert staff.visit(page_of(ada)).status_code == 404
    assert page_of(ada) not in staff.visit(f"/admin/auth/user/{ada.pk}/change/").content.decode()


def test_a_sidecar_that_is_away_is_said_to_be(site, ada, staff, settings):
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"ADMIN_TARGET": f"127.0.0.1:{free_port()}"}
    assert "does not answer" in staff.visit(page_of(ada)).content.decode()


@pytest.mark.parametrize("admin_has_tls", [True, False])
def test_certificates_and_a_token_are_shown_to_both_listeners(serve, directory, settings, ada, admin_has_tls):
    authority = Authority(directory / "authority")
    (certificate, key), token = authority.sign("both"), directory / "token"
    token.write_text("dG9rZW4tb2YtdGhlLXNpdGU=")
    port, admin = free_port(), free_port()
    query = f"token-file={token}"
    tls = f"{query}&tls-cert-file={certificate}&tls-key-file={key}&client-ca-file={authority.certificate}"
    serve("--dev", listen=[f"tcp://127.0.0.1:{port}?{tls}", f"tcp://127.0.0.1:{admin}?verbs=admin&{tls if admin_has_tls else query}"])
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {
        "TARGET": f"https://127.0.0.1:{port}",
        "ADMIN_TARGET": f"{'https' if admin_has_tls else 'http'}://127.0.0.1:{admin}",
        "TLS_CA_FILE": str(authority.certificate),
        "TLS_CERT_FILE": str(certificate),
        "TLS_KEY_FILE": str(key),
        "TOKEN_FILE": str(token),
        "DEADLINE": 20,
    }
    User.objects.create_superuser("root", password="a password")
    root = Browser()
    assert root.log_in("root").status_code == 302
    assert "does not answer" not in (page := root.visit(page_of(ada))).content.decode() and page.status_code == 200
