//! Cookies, as the door reads them, and as some applications do: a session that is over shall not come back in another guise (ADR 28).

use std::collections::BTreeSet;

use axum::http::{HeaderMap, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::settings::{Cookie, Settings};

/// The longest id.
const LONGEST_ID: usize = 256;

/// Whether it can be an id.
pub(super) fn is_id(value: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// Whether applications that undo quotes or `%` would read something that has a plainer form: the id of an ended session in another
/// guise. RFC 6265 section 4.1.1 has neither quotes, backslashes nor commas in a value; RFC 3986 section 2.3 says what needs no `%`,
/// and section 2.1 that its digits are upper case.
pub(super) fn has_another_form(value: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let digit = |byte: &u8| byte.is_ascii_hexdigit();
    let encoded = value
        .windows(3)
        .filter(|window| window[0] == b'%' && window[1..].iter().all(digit));
    let mut encoded = encoded.filter_map(|window| Some((window, percent_decode(window).next()?)));
    value.iter().any(|byte| b"\"\\,".contains(byte))
        || encoded.any(|(window, byte)| plain(byte) || window[1..].iter().any(u8::is_ascii_lowercase))
}

/// The pairs of all cookies (RFC 6265 section 5.4: with `; ` between), as bytes: others than ours may have any.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

/// The value of a pair that has this name. Quotes belong to it.
pub(super) fn own<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    (pair[..equals].trim_ascii_end() == name.as_bytes()).then(|| pair[equals + 1..].trim_ascii_start())
}

/// What some applications would read as the value of a cookie of this name in a pair that has another: they know no letter case, separate
/// pairs by commas, and begin anew at each byte behind one that they do not expect (ASP.NET Core), strip what is no letter (a no-break
/// space in Django), separate pairs by white space (Python's `http.cookies`, RFC 2109), undo `%` in names (Rack, CGI.pm), also before they
/// strip blanks and what is behind a zero, and read `.`, a space and `[` as `_` (PHP), or pass over a name that is empty (Werkzeug before
/// 2.2.3). One more than [`MOST_READINGS`] at most.
fn others<'a>(pair: &'a [u8], name: &str) -> Vec<&'a [u8]> {
    if own(pair, name).is_some() {
        return Vec::new();
    }
    let mut begin = 0;
    while let Some((byte, length)) = decoded_at(&pair[begin..])
        && (!byte.is_ascii_graphic() || b"=+".contains(&byte))
    {
        begin += length;
    }
    let is_plain = is_plain(pair);
    let apart = (begin + 1..pair.len()).filter(|place| !is_plain && !is_of_token(pair[place - 1]));
    let places = [begin].into_iter().chain(apart);
    let values = places.filter_map(|place| value_at(&pair[place..], name.as_bytes()));
    values.take(MOST_READINGS + 1).collect()
}

/// How much may stand between a name and `=`: it is looked at for each place where the name is.
const LONGEST_GAP: usize = 256;

/// The value, if this name is here, as some applications read names; at most as much of it as an id can have.
fn value_at<'a>(rest: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut length = 0;
    for expected in name {
        let (byte, taken) = decoded_at(&rest[length..])?;
        if alike(byte) != alike(*expected) {
            return None;
        }
        length += taken;
    }
    let behind = &rest[length..];
    let separates = |byte: &u8| !byte.is_ascii_graphic() || *byte == b',';
    let mut near = behind[..behind.len().min(LONGEST_GAP)].iter();
    let gap = if behind.starts_with(b"%00") {
        near.position(|byte| *byte == b'=')?
    } else {
        near.position(|byte| !separates(byte))?
    };
    let value = behind[gap..].strip_prefix(b"=")?;
    let begin = value.iter().position(u8::is_ascii_graphic).unwrap_or(value.len());
    let value = &value[begin..];
    // Each byte may be `%XX`, in quotes.
    let value = &value[..value.len().min(3 * LONGEST_ID + 2)];
    let end = match value.strip_prefix(b"\"") {
        Some(inner) => inner.iter().position(|byte| *byte == b'"').map(|end| end + 2),
        None => value.iter().position(|byte| !byte.is_ascii_graphic() || *byte == b'"'),
    };
    Some(&value[..end.unwrap_or(value.len())])
}

/// The first byte, with `%` undone, and how long it is.
fn decoded_at(rest: &[u8]) -> Option<(u8, usize)> {
    let byte = *rest.first()?;
    let encoded = rest.get(..3).filter(|encoded| encoded[0] == b'%');
    let decoded = encoded.and_then(|encoded| percent_decode(encoded).next());
    // What is no number of two digits stays as it is.
    Some(
        decoded
            .filter(|decoded| *decoded != b'%')
            .map_or((byte, 1), |decoded| (decoded, 3)),
    )
}

/// A byte of a name, as those read it that know no letter case, and `.`, a space and `[` as `_`.
fn alike(byte: u8) -> u8 {
    if b".[ +".contains(&byte) {
        b'_'
    } else {
        byte.to_ascii_lowercase()
    }
}

/// Whether some applications take two names of cookies for one.
pub(crate) fn are_alike(one: &str, other: &str) -> bool {
    one.bytes().map(alike).eq(other.bytes().map(alike))
}

/// Whether all read a pair in the same way: a name of the bytes that RFC 6265 section 4.1.1 has there, and a value of such, which may
/// stand in quotes.
fn is_plain(pair: &[u8]) -> bool {
    let of_value = |byte: &u8| byte.is_ascii_graphic() && !b"\",;\\".contains(byte);
    let equals = pair.iter().position(|byte| *byte == b'=');
    equals.is_some_and(|equals| {
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        !key.is_empty() && key.iter().all(|byte| is_of_token(*byte)) && inner.unwrap_or(value).iter().all(of_value)
    })
}

/// Whether a name can have it (RFC 9110 section 5.6.2).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// How often a cookie may be read in a pair that is another.
const MOST_READINGS: usize = 64;

/// How many values may be read so in all: the ids that they could be are asked for.
const MOST_GUISES: usize = 16;

/// What has to be written as `%XX` (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The ids that an application could take a value for, as it is or cut off at what separates to some, without quotes, and with `%` and
/// backslashes undone; or which it could have made it of.
pub(super) fn ids_of(value: &[u8]) -> BTreeSet<String> {
    let inner = value.strip_prefix(b"\"").unwrap_or(value);
    // A last quote that is missing is taken for granted by some (Express' cookie before 0.7).
    let shorter = inner.split_last().map_or(inner, |(_, shorter)| shorter);
    let last = if value.len() > inner.len() { shorter } else { inner };
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    let cut = |separator: u8| inner.split(move |byte| *byte == separator).next().unwrap_or_default();
    let mut ids = BTreeSet::new();
    for text in [inner, last, cut(b','), cut(b'&')] {
        let undone: Vec<u8> = percent_decode(&without_backslashes(text)).collect();
        let made = percent_encode(&undone, RESERVED).to_string();
        let forms = [text.to_vec(), undone, made.into_bytes()];
        ids.extend(
            forms
                .into_iter()
                .filter(|id| is_id(id))
                .filter_map(|id| String::from_utf8(id).ok()),
        );
    }
    ids
}

/// Text with `\ooo` and `\c` undone, as Python's `http.cookies` does.
fn without_backslashes(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((byte, rest)) = text.split_first() {
        text = rest;
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        let octal = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(byte);
            text = &rest[3..];
        }
    }
    plain
}

/// The ids, beside the one that is judged, that some applications would read in a request's cookies; or nothing if there are more than
/// anybody has.
pub(super) fn guises(settings: &Settings, headers: &HeaderMap, judged: &str) -> Option<BTreeSet<String>> {
    let mut values = BTreeSet::new();
    for pair in pairs(headers) {
        for cookie in &settings.cookies {
            let found = others(pair, &cookie.name);
            if found.len() > MOST_READINGS {
                return None;
            }
            values.extend(found);
        }
        if values.len() > MOST_GUISES {
            return None;
        }
    }
    let mut ids: BTreeSet<_> = values.into_iter().flat_map(ids_of).collect();
    ids.remove(judged);
    Some(ids)
}

/// The request's cookies as a header has them, without those that name a session, but for one; and whether any were taken out. With
/// `guises`: also without those that some applications would read as such.
pub(super) fn without_others(
    settings: &Settings,
    headers: &HeaderMap,
    one: Option<&Cookie>,
    guises: bool,
) -> (Vec<u8>, bool) {
    let goes = |pair: &[u8]| {
        let names = |cookie: &Cookie| {
            let is_other = own(pair, &cookie.name).is_some() && one.is_none_or(|one| one.name != cookie.name);
            is_other || (guises && !others(pair, &cookie.name).is_empty())
        };
        settings.cookies.iter().any(names)
    };
    let (gone, kept): (Vec<_>, Vec<_>) = pairs(headers).partition(|pair| goes(pair));
    (kept.join(&b"; "[..]), !gone.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(cookies: &[u8]) -> HeaderMap {
        let value = HeaderValue::from_bytes(cookies).unwrap();
        HeaderMap::from_iter([(header::COOKIE, value)])
    }

    fn with_cookies(names: &[&str]) -> Settings {
        let cookie = |name: &&str| Cookie {
            name: (*name).into(),
            ..Cookie::default()
        };
        Settings {
            cookies: names.iter().map(cookie).collect(),
            ..Settings::default()
        }
    }

    fn settings() -> Settings {
        with_cookies(&["first", "second"])
    }

    #[test]
    fn an_id_in_another_guise_is_found() {
        let guises_of_b: [&[u8]; 33] = [
            b"%66irst=b",
            b"x=1 first=b",
            b"x=1, first=b",
            b"x=1,first =b",
            b"=first=b",
            b"= =first=b",
            b"@first=b",
            b"x@FIRST=b",
            b"x=a\"first=b",
            b"x=1,First=b, y",
            b"x=a\"?first=b\"",
            b"(=?first=b",
            b"=FIRST=b",
            b"%46IRST=b",
            b"FIRST=b",
            b"First = \"b\"",
            b"FIRST=%62",
            b"First=b,c",
            b"x=1,%66irst=b",
            b"+first=b",
            b"%20first=b",
            b"first%00x=b",
            b"x=1 first=\"b\"",
            b"\xc2\xa0first=b",
            b"first\xc2\xa0=b",
            b"x\xa0first=b",
            b"\xc2\xa0first=\xc2\xa0b",
            b"x =first=b",
            b"x= first=b",
            b"%66irst=b&x",
            b"\xa0first=\"bX",
            b"x=1 first=\"\\142\"",
            b"x=,first=first=b",
        ];
        for guise in guises_of_b {
            let headers = headers(&[b"first=a; ", guise].concat());
            let found = guises(&settings(), &headers, "a").unwrap();
            let shown = guise.escape_ascii();
            assert!(found.contains("b"), "{shown}: {found:?}");
            let (left, taken) = without_others(&settings(), &headers, None, true);
            assert!(taken && left.is_empty(), "{shown}");
        }
        for (name, cookie) in [
            ("my_sid", "my.sid=b; my_sid=a"),
            ("my_sid", "my[sid=b"),
            ("my.sid", "my.sid=a; MY_sid=b"),
        ] {
            assert_eq!(
                guises(&with_cookies(&[name]), &headers(cookie.as_bytes()), "a"),
                some(&["b"])
            );
        }
    }

    fn some(ids: &[&str]) -> Option<BTreeSet<String>> {
        Some(ids.iter().map(|id| (*id).to_owned()).collect())
    }

    fn guises_in(cookies: &str) -> Option<BTreeSet<String>> {
        guises(&settings(), &headers(cookies.as_bytes()), "a")
    }

    #[test]
    fn what_nobody_reads_as_the_sessions_cookie_is_none() {
        for cookies in [
            "first=a; x=/?first=b:@first=c(first=d",
            "first=a; x=\"b\"; y=%61, firsts=1",
            "first=a; next=\"/page?first=1\"",
            "first=a; next=%22%2Fpage%20first%3D1",
            "first=a; x=1 first=a",
            "first=a; x=1%2C%46irst=%62",
        ] {
            assert_eq!(guises_in(cookies), some(&[]), "{cookies}");
        }
        let many = |count: usize| {
            let many: Vec<_> = (0..count).map(|id| format!("FIRST={id}; FIRST={id}")).collect();
            guises_in(&many.join("; "))
        };
        assert_eq!(many(MOST_GUISES).unwrap().len(), MOST_GUISES);
        assert_eq!(many(MOST_GUISES + 1), None);
        assert_eq!(guises_in(&format!("x={}", " first=a".repeat(MOST_READINGS))), some(&[]));
        assert_eq!(guises_in(&format!("x={}", " first=a".repeat(MOST_READINGS + 1))), None);
    }

    #[test]
    fn an_application_may_have_written_an_id_in_another_way() {
        let ids = |value: &str| ids_of(value.as_bytes()).into_iter().collect::<Vec<_>>();
        assert_eq!(ids("c2lk-_.~"), ["c2lk-_.~"]);
        assert_eq!(ids("s:a/b"), ["s%3Aa%2Fb", "s:a/b"]);
        assert_eq!(ids("s%3aa"), ["s%3Aa", "s%3aa", "s:a"]);
        assert_eq!(ids("a,b&c"), ["a", "a%2Cb", "a%2Cb%26c", "a,b", "a,b&c"]);
        assert_eq!(ids("\"\\+12\""), ["%2B12", "+12", "\\+12"]);
        assert_eq!(ids("\"\\141,\""), ["\\141", "\\141,", "a", "a%2C", "a,"]);
        assert_eq!(ids(""), [""; 0]);
    }

    #[test]
    fn the_longest_cookies_are_read_in_no_time() {
        // A quadratic reader takes minutes for it, or the memory of ten machines.
        for part in [
            ",",
            "first ",
            "first,",
            "%2C",
            "x first",
            "first=",
            "=",
            "%20",
            "a=\"",
            "first%00,",
        ] {
            let long = part.repeat(1 << 17);
            for cookies in [format!("x=,{long}"), long] {
                let headers = headers(cookies.as_bytes());
                let found = guises(&settings(), &headers, "a");
                let too_many = cookies.starts_with("x=,first=");
                assert_eq!(found, if too_many { None } else { some(&[]) }, "{part}");
                without_others(&settings(), &headers, None, true);
            }
        }
    }

    #[test]
    fn applications_see_one_cookie_that_names_a_session() {
        let settings = settings();
        let left = |cookies: &str, one: Option<usize>, guises: bool| {
            let headers = headers(cookies.as_bytes());
            let one = one.map(|one| &settings.cookies[one]);
            let (left, taken) = without_others(&settings, &headers, one, guises);
            (String::from_utf8(left).unwrap(), taken)
        };
        let all = "x=1; first=a; second=b; y=\"2\"";
        assert_eq!(left(all, Some(0), false), ("x=1; first=a; y=\"2\"".to_owned(), true));
        assert_eq!(left(all, Some(1), false), ("x=1; second=b; y=\"2\"".to_owned(), true));
        assert_eq!(left(all, None, false), ("x=1; y=\"2\"".to_owned(), true));
        assert_eq!(left("x=1; first=a", Some(0), true), ("x=1; first=a".to_owned(), false));
        let like = "FIRST=b; x=1; Second = c; FIRSTS=d";
        assert_eq!(left(like, None, false), (like.to_owned(), false));
        assert_eq!(left(like, None, true), ("x=1; FIRSTS=d".to_owned(), true));
    }
}
