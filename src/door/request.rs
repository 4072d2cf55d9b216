//! What a request says: whose session it is about, and whether a page of the site itself sent it.

use axum::http::{HeaderMap, HeaderName, header};

use super::{
    cookies,
    settings::{Cookie, Settings, without_port},
};

/// The header that a script must send with whatever changes something. A page of another site cannot, unless the browser asks the door
/// first (CORS), and the door never agrees.
pub(super) const OWN_HEADER: HeaderName = HeaderName::from_static("x-session-sidecar");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How a request names its session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// Not at all.
    Nothing,
    /// By an id, in a cookie or in the header.
    Id(&'a str, Option<&'a Cookie>),
    /// By what cannot be an id, or by two: nobody knows which one the application would take.
    Unclear(&'static str),
}

/// The session's name in a request.
pub(super) fn named<'a>(settings: &'a Settings, headers: &'a HeaderMap) -> Named<'a> {
    if let Some(header) = &settings.header {
        let mut values = headers.get_all(&**header).iter();
        match (values.next(), values.next()) {
            (None, _) => {}
            (Some(value), None) => return checked(value.as_bytes(), None),
            (Some(_), Some(_)) => return Named::Unclear("two headers name a session"),
        }
    }
    for cookie in &settings.cookies {
        let mut found: Option<&[u8]> = None;
        for value in cookies::pairs(headers).filter_map(|pair| cookies::own(pair, &cookie.name)) {
            if found.is_some_and(|known| known != value) {
                return Named::Unclear("two cookies of one name name different sessions");
            }
            found = Some(value);
        }
        if let Some(value) = found.filter(|value| !value.is_empty()) {
            return checked(value, Some(cookie));
        }
    }
    Named::Nothing
}

fn checked<'a>(value: &'a [u8], cookie: Option<&'a Cookie>) -> Named<'a> {
    match std::str::from_utf8(value) {
        Ok(_) if cookie.is_some() && cookies::has_another_form(value) => Named::Unclear(
            "the cookie that names the session has quotes, backslashes, commas, or what needs no %: some applications would read another id",
        ),
        Ok(id) if cookies::is_id(value) => Named::Id(id, cookie),
        _ => Named::Unclear("what names the session is no id: 1 to 256 bytes of visible ASCII"),
    }
}

/// Who sent a request, as far as the browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A page of this very origin, or one that the settings name.
    Own,
    /// No browser says: it is none, or an old one.
    Unsaid,
    /// A page of somebody else.
    Foreign,
}

/// Who sent it: Origin decides, for it is in every request that changes something (Fetch standard); else Sec-Fetch-Site.
pub(super) fn sender(settings: &Settings, headers: &HeaderMap) -> Sender {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or("");
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        let own = !authority.is_empty() && authority.eq_ignore_ascii_case(host);
        let named = || settings.origins.iter().any(|known| known.eq_ignore_ascii_case(origin));
        return if own || named() { Sender::Own } else { Sender::Foreign };
    }
    match headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes()) {
        None => Sender::Unsaid,
        Some(b"same-origin") => Sender::Own,
        // `none`: typed by the person. No script and no form does that.
        Some(_) => Sender::Foreign,
    }
}

/// The host that a request is for, without port.
pub(super) fn host(headers: &HeaderMap) -> &str {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    without_port(host.unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn settings() -> Settings {
        let cookie = |name: &str| Cookie {
            name: name.into(),
            ..Cookie::default()
        };
        Settings {
            cookies: vec![cookie("first"), cookie("second")],
            origins: vec!["https://app.example".into()],
            ..Settings::default()
        }
    }

    fn id_in(pairs: &[(&'static str, &str)]) -> String {
        match named(&settings(), &headers(pairs)) {
            Named::Nothing => "nothing".to_owned(),
            Named::Id(id, cookie) => format!("{id} in {}", cookie.map_or("header", |cookie| &cookie.name)),
            Named::Unclear(_) => "unclear".to_owned(),
        }
    }

    #[test]
    fn the_first_cookie_that_is_there_names_the_session() {
        assert_eq!(id_in(&[]), "nothing");
        assert_eq!(id_in(&[("cookie", "other=1; first=")]), "nothing");
        assert_eq!(id_in(&[("cookie", "second=b; first=a")]), "a in first");
        assert_eq!(id_in(&[("cookie", "x=1"), ("cookie", " second=b ")]), "b in second");
        assert_eq!(id_in(&[("cookie", "first=a; first=a")]), "a in first");
        assert_eq!(id_in(&[("cookie", "firsts=a; xfirst=b")]), "nothing");
        assert_eq!(id_in(&[("cookie", "first=a=b")]), "a=b in first");
        assert_eq!(id_in(&[("cookie", "first=a; FIRST=b; x=1, first=c")]), "a in first");
        let mut foreign = HeaderMap::new();
        foreign.insert(
            header::COOKIE,
            HeaderValue::from_bytes(b"city=M\xfcnchen; first=a; x").unwrap(),
        );
        assert_eq!(
            named(&settings(), &foreign),
            Named::Id("a", Some(&settings().cookies[0]))
        );
        assert_eq!(
            cookies::without_others(&settings(), &foreign, None, false),
            (b"city=M\xfcnchen; x".to_vec(), true)
        );
    }

    #[test]
    fn what_cannot_be_an_id_names_nobody_and_is_not_passed_over() {
        let long = format!("first={}", "a".repeat(257));
        for cookie in ["first=a; first=b", "first=a b; second=c", long.as_str()] {
            assert_eq!(id_in(&[("cookie", cookie)]), "unclear", "{cookie}");
        }
    }

    #[test]
    fn a_value_that_has_a_plainer_form_is_no_id() {
        for cookie in [
            "first=\"a\"",
            "first=\\141",
            "first=a,b",
            "first=a, first=b",
            "first=a first=b",
            "first=%61",
            "first=a%2fb",
            "first=s%3aa",
        ] {
            assert_eq!(id_in(&[("cookie", cookie)]), "unclear", "{cookie}");
        }
        for (cookie, id) in [
            ("first=s%3Aa%2Bb", "s%3Aa%2Bb in first"),
            ("first=100%; x=?first=b&first=c", "100% in first"),
        ] {
            assert_eq!(id_in(&[("cookie", cookie)]), id);
        }
    }

    #[test]
    fn a_request_is_from_a_page_of_the_site_or_it_is_not() {
        let cases: [(&[(&'static str, &str)], Sender); 10] = [
            (&[], Sender::Unsaid),
            (
                &[("host", "shop.example"), ("origin", "https://shop.example")],
                Sender::Own,
            ),
            (
                &[("host", "shop.example:8443"), ("origin", "https://SHOP.example:8443")],
                Sender::Own,
            ),
            (
                &[("host", "shop.example"), ("origin", "https://shop.example:8443")],
                Sender::Foreign,
            ),
            (
                &[("host", "shop.example"), ("origin", "https://app.example")],
                Sender::Own,
            ),
            (&[("host", "shop.example"), ("origin", "null")], Sender::Foreign),
            (&[("host", ""), ("origin", "null")], Sender::Foreign),
            // Origin decides, whatever else is said.
            (
                &[
                    ("host", "a"),
                    ("origin", "https://b"),
                    ("sec-fetch-site", "same-origin"),
                ],
                Sender::Foreign,
            ),
            (&[("host", "a"), ("sec-fetch-site", "same-origin")], Sender::Own),
            (&[("host", "a"), ("sec-fetch-site", "same-site")], Sender::Foreign),
        ];
        for (pairs, expected) in cases {
            assert_eq!(sender(&settings(), &headers(pairs)), expected, "{pairs:?}");
        }
    }
}
