//! Who is let in: what a connection's requests may do, and the bearer token that they must show, if any.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::sync::watch;

use super::{
    Caller, Callers, Peer,
    error::{CallError, Called},
};
use crate::net::Room;

/// What the requests of a connection may do, and what they must show for it.
#[derive(Clone)]
pub struct Admission {
    /// What the listener lets those do who are not known by name.
    caller: Arc<Caller>,
    tokens: Option<Arc<Tokens>>,
    callers: Arc<Callers>,
    peer: Peer,
    room: Arc<Room>,
}

impl From<Arc<Caller>> for Admission {
    fn from(caller: Arc<Caller>) -> Self {
        Self {
            caller,
            tokens: None,
            callers: Arc::default(),
            peer: Peer::default(),
            room: Arc::default(),
        }
    }
}

impl Admission {
    /// Lets in whoever shows one of the tokens.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Arc<Tokens>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Lets those whom it knows do what they may, whatever the listener says.
    #[must_use]
    pub fn with_callers(mut self, callers: Arc<Callers>) -> Self {
        self.callers = callers;
        self
    }

    /// The same for a connection with this at its other end. What each request counts references of is the connection's own: two
    /// processors that count those of one thing wait for each other.
    #[must_use]
    pub fn of(&self, peer: Peer) -> Self {
        Self {
            caller: Arc::new(Caller::clone(&self.caller)),
            peer,
            room: Arc::default(),
            ..self.clone()
        }
    }

    /// Room for what has come of the connection's requests that have not come whole.
    pub(super) fn room(&self) -> Arc<Room> {
        Arc::clone(&self.room)
    }

    /// What a request may do that has not been read, if that `must` be known now: some are turned away, whatever they ask for.
    pub(super) fn receive(&self, headers: &HeaderMap, must: bool) -> Called<Option<Arc<Caller>>> {
        if self.tokens.is_none() && !self.caller.verbs.is_empty() && !must {
            return Ok(None);
        }
        let caller = self.admit(headers)?;
        if caller.verbs.is_empty() {
            return Err(CallError::Denied(
                "this listener is for those whom [[callers]] in the policy file knows, and it does not know this caller".to_owned(),
            ));
        }
        Ok(Some(caller))
    }

    /// What a request with these headers may do.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Called<Arc<Caller>> {
        // Where nobody is known by a token, what a request shows is its application's own business.
        let asked = self.tokens.is_some() || self.callers.now().knows_tokens();
        let shown = asked.then(|| Shown::by(headers)).flatten();
        self.decide(shown.as_ref())
    }

    fn decide(&self, shown: Option<&Shown>) -> Called<Arc<Caller>> {
        let callers = self.callers.now();
        let by_token = shown.and_then(|shown| callers.shows(&shown.0));
        if let (Some(tokens), None) = (&self.tokens, by_token) {
            tokens.check(shown)?;
        }
        let by_peer = callers.is(&self.peer);
        // The first in the file.
        let known = by_token.into_iter().chain(by_peer).min();
        Ok(Arc::clone(known.map_or(&self.caller, |place| callers.may(place))))
    }

    /// Done when a request with these headers, which was let in to do that, would not be let in any more, or to do something else.
    pub(super) fn withdrawn(
        self: &Arc<Self>,
        headers: &HeaderMap,
        was: Arc<Caller>,
    ) -> impl Future<Output = CallError> + use<> {
        let (admission, shown) = (Arc::clone(self), Shown::by(headers));
        let mut callers = self.callers.changes();
        let mut tokens = self.tokens.as_ref().map(|tokens| tokens.changed.subscribe());
        async move {
            loop {
                match admission.decide(shown.as_ref()) {
                    Ok(now) if now.has_rights_of(&was) => {}
                    Ok(_) => return CallError::CallerChanged,
                    Err(error) => return error,
                }
                let tokens_changed = async {
                    match &mut tokens {
                        Some(changed) => changed.changed().await,
                        None => std::future::pending().await,
                    }
                };
                let changed = tokio::select! {
                    changed = callers.changed() => changed,
                    changed = tokens_changed => changed,
                };
                if changed.is_err() {
                    // Nobody changes anything any more.
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// A bearer token that a request shows (RFC 6750).
struct Shown(blake3::Hash);

impl Shown {
    fn by(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("authorization")?.as_bytes();
        let (scheme, token) = value.split_at_checked(7)?;
        let bearer = scheme.eq_ignore_ascii_case(b"bearer ");
        bearer.then(|| Self(blake3::hash(token.trim_ascii())))
    }
}

/// The bearer tokens that a listener accepts: one, or two while it is changed.
pub struct Tokens {
    hashes: ArcSwap<Vec<blake3::Hash>>,
    changed: watch::Sender<()>,
}

/// The shortest token: 16 characters of base64 are 96 bits.
const SHORTEST: usize = 16;

const LONGEST: usize = 4096;

impl Tokens {
    /// Reads a file's text: a token a line. The error says nothing of what a token is.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            hashes: ArcSwap::from_pointee(hashes(text).map_err(about_file)?),
            changed: watch::Sender::default(),
        })
    }

    /// Accepts what a file's new text says from now on; a bad one changes nothing.
    pub fn replace(&self, text: &str) -> Result<(), String> {
        self.hashes.store(Arc::new(hashes(text).map_err(about_file)?));
        self.changed.send_replace(());
        Ok(())
    }

    fn check(&self, shown: Option<&Shown>) -> Called<()> {
        let Some(Shown(shown)) = shown else {
            return Err(CallError::Unauthenticated(
                "this listener demands a bearer token: send the metadata `authorization: Bearer TOKEN`",
            ));
        };
        // Hashes are compared in constant time, and all of them.
        let known = self
            .hashes
            .load()
            .iter()
            .fold(false, |known, hash| known | (hash == shown));
        if known {
            return Ok(());
        }
        Err(CallError::Unauthenticated(
            "the bearer token is none of those in the listener's token-file",
        ))
    }
}

fn about_file(error: String) -> String {
    format!("token-file: {error}")
}

/// What the tokens of a file's text are known by.
pub(super) fn hashes(text: &str) -> Result<Vec<blake3::Hash>, String> {
    let tokens: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if !(1..=2).contains(&tokens.len()) {
        return Err(format!(
            "it must hold one token, or two on lines of their own while it is changed, not {}",
            tokens.len()
        ));
    }
    for token in &tokens {
        // RFC 6750 section 2.1.
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !(SHORTEST..=LONGEST).contains(&token.len()) || !token.bytes().all(good) {
            return Err(format!(
                "a token must be {SHORTEST} to {LONGEST} letters, digits or -._~+/= (head -c 32 /dev/urandom | base64)"
            ));
        }
    }
    Ok(tokens.iter().map(|token| blake3::hash(token.as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "c2Vzc2lvbi1zaWRlY2Fy";
    const NEXT: &str = "bmV4dC1uZXh0LW5leHQ=";

    fn headers(value: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert("authorization", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_checked_and_changed_by_way_of_two() {
        let tokens = Tokens::parse(&format!("{TOKEN}\n")).unwrap();
        let lets = |tokens: &Tokens, value: &str| tokens.check(Shown::by(&headers(Some(value))).as_ref()).is_ok();
        assert!(lets(&tokens, &format!("Bearer {TOKEN}")) && lets(&tokens, &format!("bearer {TOKEN}")));
        assert!(tokens.check(None).is_err());
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            &format!("Basic  {TOKEN}"),
            &format!("Bearer {NEXT}"),
            &format!("Bearer {TOKEN}x"),
        ] {
            assert!(!lets(&tokens, bad), "{bad}");
        }
        tokens.replace(&format!("{TOKEN}\r\n{NEXT}\n\n")).unwrap();
        assert!(lets(&tokens, &format!("Bearer {TOKEN}")) && lets(&tokens, &format!("Bearer {NEXT}")));
        for bad in [
            "",
            "short",
            "a\nb\nc",
            &format!("{TOKEN}\n{TOKEN}\n{TOKEN}"),
            "space space space space",
            "ä".repeat(20).as_str(),
        ] {
            let error = tokens.replace(bad).unwrap_err();
            assert!(error.contains("token"), "{error}");
        }
        assert!(lets(&tokens, &format!("Bearer {NEXT}")), "a bad file changes nothing");
        tokens.replace(NEXT).unwrap();
        assert!(!lets(&tokens, &format!("Bearer {TOKEN}")));
    }
}
