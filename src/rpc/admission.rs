//! Who is let in: what a connection's requests may do, and the bearer token that they must show, if any.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::metadata::MetadataMap;

use super::{
    Caller,
    error::{CallError, Called},
};

/// What the requests of a connection may do, and what they must show for it.
#[derive(Clone)]
pub struct Admission {
    caller: Arc<Caller>,
    tokens: Option<Arc<Tokens>>,
}

impl From<Arc<Caller>> for Admission {
    fn from(caller: Arc<Caller>) -> Self {
        Self { caller, tokens: None }
    }
}

impl Admission {
    /// Lets in whoever shows one of the tokens.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Arc<Tokens>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// What a request with these headers may do.
    pub(super) fn admit(&self, headers: &MetadataMap) -> Called<&Arc<Caller>> {
        if let Some(tokens) = &self.tokens {
            tokens.check(headers)?;
        }
        Ok(&self.caller)
    }
}

/// The bearer tokens (RFC 6750) that a listener accepts: one, or two while it is changed.
pub struct Tokens(ArcSwap<Vec<blake3::Hash>>);

/// The shortest token: 16 characters of base64 are 96 bits.
const SHORTEST: usize = 16;

const LONGEST: usize = 4096;

impl Tokens {
    /// Reads a file's text: a token a line. The error says nothing of what a token is.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(ArcSwap::from_pointee(hashes(text)?)))
    }

    /// Accepts what a file's new text says from now on; a bad one changes nothing.
    pub fn replace(&self, text: &str) -> Result<(), String> {
        self.0.store(Arc::new(hashes(text)?));
        Ok(())
    }

    fn check(&self, headers: &MetadataMap) -> Called<()> {
        let shown = headers.get("authorization").map(|value| value.as_bytes());
        let Some((scheme, token)) = shown.and_then(|value| value.split_at_checked(7)) else {
            return Err(CallError::Unauthenticated(
                "this listener demands a bearer token: send the metadata `authorization: Bearer TOKEN`",
            ));
        };
        let shown = blake3::hash(token.trim_ascii());
        // Hashes are compared in constant time, and all of them.
        let known = self.0.load().iter().fold(false, |known, hash| known | (*hash == shown));
        if known && scheme.eq_ignore_ascii_case(b"bearer ") {
            return Ok(());
        }
        Err(CallError::Unauthenticated(
            "the bearer token is none of those in the listener's token-file",
        ))
    }
}

fn hashes(text: &str) -> Result<Vec<blake3::Hash>, String> {
    let tokens: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if !(1..=2).contains(&tokens.len()) {
        return Err(format!(
            "token-file: it must hold one token, or two on lines of their own while it is changed, not {}",
            tokens.len()
        ));
    }
    for token in &tokens {
        // RFC 6750 section 2.1.
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !(SHORTEST..=LONGEST).contains(&token.len()) || !token.bytes().all(good) {
            return Err(format!(
                "token-file: a token must be {SHORTEST} to {LONGEST} letters, digits or -._~+/= (head -c 32 /dev/urandom | base64)"
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

    fn headers(value: Option<&str>) -> MetadataMap {
        let mut headers = MetadataMap::new();
        if let Some(value) = value {
            headers.insert("authorization", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_checked_and_changed_by_way_of_two() {
        let tokens = Tokens::parse(&format!("{TOKEN}\n")).unwrap();
        let lets = |tokens: &Tokens, value: &str| tokens.check(&headers(Some(value))).is_ok();
        assert!(lets(&tokens, &format!("Bearer {TOKEN}")) && lets(&tokens, &format!("bearer {TOKEN}")));
        assert!(tokens.check(&headers(None)).is_err());
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
