//! What a request says: whose session it is about, and whether a page of the site itself sent it.

use axum::http::{HeaderMap, HeaderName, header};

use percent_encoding::percent_decode;

use super::settings::{Cookie, Settings, without_port};

/// The header that a script must send with whatever changes something. A page of another site cannot, unless the browser asks the door
/// first (CORS), and the door never agrees.
pub(super) const OWN_HEADER: HeaderName = HeaderName::from_static("x-session-sidecar");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The longest id.
const LONGEST_ID: usize = 256;

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
        for pair in pairs(headers) {
            match read(pair, &cookie.name) {
                Reading::Guise => {
                    return Named::Unclear(
                        "a cookie is not the one that names a session, and some applications would read it as that",
                    );
                }
                Reading::Own(value) if found.is_some_and(|known| known != value) => {
                    return Named::Unclear("two cookies of one name name different sessions");
                }
                Reading::Own(value) => found = Some(value),
                Reading::InOtherCase(_) | Reading::Foreign => {}
            }
        }
        if let Some(value) = found.filter(|value| !value.is_empty()) {
            return checked(value, Some(cookie));
        }
    }
    Named::Nothing
}

fn checked<'a>(value: &'a [u8], cookie: Option<&'a Cookie>) -> Named<'a> {
    match std::str::from_utf8(value) {
        Ok(_) if cookie.is_some() && has_another_form(value) => Named::Unclear(
            "the cookie that names the session has quotes, backslashes, commas, or what needs no %: some applications would read another id",
        ),
        Ok(id) if is_id(value) => Named::Id(id, cookie),
        _ => Named::Unclear("what names the session is no id: 1 to 256 bytes of visible ASCII"),
    }
}

fn is_id(value: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// Whether applications that undo quotes or `%` would read something that has a plainer form: the id of an ended session in another
/// guise. RFC 6265 section 4.1.1 has neither quotes, backslashes nor commas in a value; RFC 3986 section 2.3 says what needs no `%`,
/// and section 2.1 that its digits are upper case.
fn has_another_form(value: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let digit = |byte: &u8| byte.is_ascii_hexdigit();
    let encoded = value
        .windows(3)
        .filter(|window| window[0] == b'%' && window[1..].iter().all(digit));
    let mut encoded = encoded.filter_map(|window| Some((window, percent_decode(window).next()?)));
    value.iter().any(|byte| b"\"\\,".contains(byte))
        || encoded.any(|(window, byte)| plain(byte) || window[1..].iter().any(u8::is_ascii_lowercase))
}

/// What a pair is, where a cookie of some name is looked for.
#[derive(Debug, PartialEq, Eq)]
enum Reading<'a> {
    /// That cookie, with this value. Quotes belong to it.
    Own(&'a [u8]),
    /// One whose name differs by letter case alone, which some do not tell apart (ASP.NET Core).
    InOtherCase(&'a [u8]),
    /// Nothing plain, and some applications would read that cookie in it.
    Guise,
    /// Another cookie.
    Foreign,
}

/// Reads a pair as the strictest and the most lenient would: some strip what is no letter (a no-break space in Django), separate pairs by
/// white space or commas as well (Python's `http.cookies`, RFC 2109), or begin anew behind each byte that they do not expect (ASP.NET
/// Core), undo `%` in names (Rack), read `.`, a space and `[` as `_` (PHP), or pass over a name that is empty (Werkzeug before 2.2.3).
fn read<'a>(pair: &'a [u8], name: &str) -> Reading<'a> {
    let name = name.as_bytes();
    if is_within(pair, name) {
        return Reading::Guise;
    }
    if let Some((key, value)) = split(pair)
        && key.eq_ignore_ascii_case(name)
    {
        return if key == name {
            Reading::Own(value)
        } else {
            Reading::InOtherCase(value)
        };
    }
    let begin = pair
        .iter()
        .take_while(|byte| **byte == b'=' || byte.is_ascii_whitespace());
    let pair = &pair[begin.count()..];
    let (key, _) = split(pair).unwrap_or((pair, b""));
    let key: Vec<u8> = percent_decode(key).collect();
    let underscored = |name: &[u8]| -> Vec<u8> {
        let bytes = name.iter();
        bytes
            .map(|byte| if b".[ +".contains(byte) { b'_' } else { *byte })
            .collect()
    };
    if underscored(&key).eq_ignore_ascii_case(&underscored(name)) {
        Reading::Guise
    } else {
        Reading::Foreign
    }
}

/// Whether this name and `=` are in a pair that is not plain, in any letter case, behind what no name has, but at its beginning.
fn is_within(pair: &[u8], name: &[u8]) -> bool {
    let separates = |byte: &u8| !byte.is_ascii_graphic() || *byte == b',';
    let mut places = pair.windows(name.len()).enumerate();
    !is_plain(pair)
        && places.any(|(place, window)| {
            let behind = &pair[place + name.len()..];
            let gap = behind.iter().take_while(|byte| separates(byte)).count();
            let is_first = place == 0 && behind[..gap].trim_ascii().is_empty();
            window.eq_ignore_ascii_case(name)
                && !is_first
                && (place == 0 || !is_of_token(pair[place - 1]))
                && behind.get(gap) == Some(&b'=')
        })
}

/// Whether all read a pair in the same way: a name of the bytes that RFC 6265 section 4.1.1 has there, and a value of such.
fn is_plain(pair: &[u8]) -> bool {
    let of_value = |byte: &u8| byte.is_ascii_graphic() && !b"\",;\\".contains(byte);
    split(pair).is_some_and(|(key, value)| {
        !key.is_empty() && key.iter().all(|byte| is_of_token(*byte)) && value.iter().all(of_value)
    })
}

/// Whether a name can have it (RFC 9110 section 5.6.2).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The name and the value of a pair.
fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair[..equals].trim_ascii_end(), pair[equals + 1..].trim_ascii_start()))
}

/// How many cookies may differ from the session's by letter case: each is asked for.
const MOST_IN_OTHER_CASE: usize = 4;

/// The ids that applications which know no letter case would read in cookies whose names differ from the session's by that alone; or
/// nothing if there are more than anybody has.
pub(super) fn in_other_case(settings: &Settings, headers: &HeaderMap) -> Option<Vec<String>> {
    let mut ids = Vec::new();
    let mut count = 0;
    for pair in pairs(headers) {
        for cookie in &settings.cookies {
            let Reading::InOtherCase(value) = read(pair, &cookie.name) else {
                continue;
            };
            count += 1;
            if count > MOST_IN_OTHER_CASE {
                return None;
            }
            let first = value
                .split(|byte| *byte == b',')
                .next()
                .unwrap_or_default()
                .trim_ascii();
            let bare = first
                .strip_prefix(b"\"")
                .and_then(|bare| bare.strip_suffix(b"\""))
                .unwrap_or(first);
            for id in [value, &percent_decode(bare).collect::<Vec<_>>()] {
                ids.extend(String::from_utf8(id.to_vec()).ok().filter(|_| is_id(id)));
            }
        }
    }
    ids.dedup();
    Some(ids)
}

/// The pairs of all cookies (RFC 6265 section 5.4: with `; ` between), as bytes: others than ours may have any.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

/// The request's cookies as a header has them, without those that name a session or could be read as that, but for one; and whether any
/// were taken out. In `any_case`: also those that differ by letter case alone.
pub(super) fn cookies_without_others(
    settings: &Settings,
    headers: &HeaderMap,
    one: Option<&Cookie>,
    any_case: bool,
) -> (Vec<u8>, bool) {
    let goes = |pair: &[u8]| {
        let names = |cookie: &Cookie| match read(pair, &cookie.name) {
            Reading::Own(_) | Reading::Guise => true,
            Reading::InOtherCase(_) => any_case,
            Reading::Foreign => false,
        };
        let stays = |one: &Cookie| matches!(read(pair, &one.name), Reading::Own(_));
        settings.cookies.iter().any(names) && !one.is_some_and(stays)
    };
    let (gone, kept): (Vec<_>, Vec<_>) = pairs(headers).partition(|pair| goes(pair));
    (kept.join(&b"; "[..]), !gone.is_empty())
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
            cookies_without_others(&settings(), &foreign, None, false),
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
    fn an_id_in_another_guise_is_not_passed_over() {
        for cookie in [
            "first=\"a\"",
            "first=\\141",
            "first=a,b",
            "first=%61",
            "first=a%2fb",
            "first=s%3aa",
            "%66irst=b; first=a",
            "first=a; x=1 first=b",
            "first=a; x=1, first=b",
            "first=a; x=1,first =b",
            "first=a; =first=b",
            "= =first=b",
            "first=a; @first=b",
            "first=a; x@FIRST=b",
            "first=a; x=a\"first=b",
            "first=a; x=1,First=b",
            "first=a; x=a\"?first=b",
            "first=a; (=?first=b",
            "first=a; =FIRST=b",
            "first=a; %46IRST=b",
        ] {
            assert_eq!(id_in(&[("cookie", cookie)]), "unclear", "{cookie}");
        }
        for (cookie, id) in [
            ("first=s%3Aa%2Bb", "s%3Aa%2Bb in first"),
            ("first=100%; x=?first=b&first=c", "100% in first"),
            ("first=a; x=/?first=b:@first=c(first=d", "a in first"),
            ("first=a; x=\"b\"; y=%61, firsts=1", "a in first"),
        ] {
            assert_eq!(id_in(&[("cookie", cookie)]), id);
        }
        for bytes in [
            &b"first=a; \xc2\xa0first=b"[..],
            b"first=a; first\xc2\xa0=b",
            b"first=a; x\xa0first=b",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_bytes(bytes).unwrap());
            assert!(matches!(named(&settings(), &headers), Named::Unclear(_)), "{bytes:?}");
        }
        let php = Settings {
            cookies: vec![Cookie {
                name: "my_sid".into(),
                ..Cookie::default()
            }],
            ..Settings::default()
        };
        let dotted = Settings {
            cookies: vec![Cookie {
                name: "my.sid".into(),
                ..Cookie::default()
            }],
            ..Settings::default()
        };
        for (settings, cookie) in [
            (&php, "my.sid=b; my_sid=a"),
            (&php, "my[sid=b"),
            (&dotted, "my.sid=a; MY_sid=b"),
        ] {
            let headers = headers(&[("cookie", cookie)]);
            assert!(matches!(named(settings, &headers), Named::Unclear(_)), "{cookie}");
        }
    }

    #[test]
    fn applications_see_one_cookie_that_names_a_session_and_nothing_like_it() {
        let settings = settings();
        let left = |cookies: &str, one: Option<usize>| {
            let headers = headers(&[("cookie", cookies)]);
            let one = one.map(|one| &settings.cookies[one]);
            let (left, taken) = cookies_without_others(&settings, &headers, one, false);
            (String::from_utf8(left).unwrap(), taken)
        };
        let all = "x=1; first=a; second=b; y=\"2\"";
        assert_eq!(left(all, Some(0)), ("x=1; first=a; y=\"2\"".to_owned(), true));
        assert_eq!(left(all, Some(1)), ("x=1; second=b; y=\"2\"".to_owned(), true));
        assert_eq!(left(all, None), ("x=1; y=\"2\"".to_owned(), true));
        assert_eq!(left("x=1; first=a", Some(0)), ("x=1; first=a".to_owned(), false));
        for guise in ["%73econd=b", "z=1 second=b", "=second=b", "second"] {
            assert_eq!(
                left(&format!("first=a; {guise}"), Some(0)),
                ("first=a".to_owned(), true),
                "{guise}"
            );
        }
    }

    #[test]
    fn names_in_other_letter_case_are_told_apart_only_if_that_is_wanted() {
        let cookies = |cookies: &str| headers(&[("cookie", cookies)]);
        let ids = |text: &str| in_other_case(&settings(), &cookies(text));
        let some = cookies("first=a; FIRST=b; x=1; Second = c; FIRSTS=d; First=\"\t\"");
        assert_eq!(in_other_case(&settings(), &some).unwrap(), ["b", "c"]);
        assert_eq!(
            ids("FIRST=%62; First=\"c\"; fIRST=d,e").unwrap(),
            ["%62", "b", "\"c\"", "c", "d,e", "d"]
        );
        let many = "FIRST=a; ".repeat(MOST_IN_OTHER_CASE);
        assert_eq!(ids(&many).unwrap(), ["a"]);
        assert_eq!(ids(&format!("{many}FIRST=a")), None);
        let left = |any_case: bool| {
            let (left, _) = cookies_without_others(&settings(), &some, None, any_case);
            String::from_utf8(left).unwrap()
        };
        assert_eq!(left(true), "x=1; FIRSTS=d");
        assert_eq!(left(false), "FIRST=b; x=1; Second = c; FIRSTS=d; First=\"\t\"");
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
