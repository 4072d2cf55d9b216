//! Page tokens: where a list goes on. Authenticated and bound to the tenant and the filter, so that nobody can read on in
//! another list (G17).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::state::SessionRef;

/// Makes and reads page tokens.
pub(super) struct Pages {
    key: [u8; 32],
}

/// How many bytes of the hash a token carries.
const MAC: usize = 16;

impl Pages {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The token of the page after this session, in the list of which `binding` is a digest.
    pub(super) fn issue(&self, after: SessionRef, binding: &[u8; 32]) -> String {
        format!("{after}{}", self.mac(after, binding))
    }

    /// The session after which to go on; `None` if it is no token of this list.
    pub(super) fn open(&self, token: &str, binding: &[u8; 32]) -> Option<SessionRef> {
        let (reference, mac) = token.split_at_checked(SessionRef::LENGTH)?;
        let after: SessionRef = reference.parse().ok()?;
        // Both sides are hashed, so the comparison tells nothing about how far they agree.
        let same = blake3::hash(mac.as_bytes()) == blake3::hash(self.mac(after, binding).as_bytes());
        same.then_some(after)
    }

    fn mac(&self, after: SessionRef, binding: &[u8; 32]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(after.to_string().as_bytes()).update(binding);
        URL_SAFE_NO_PAD.encode(&hasher.finalize().as_bytes()[..MAC])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Keys;

    #[test]
    fn g17_a_token_opens_only_in_its_own_list() {
        let pages = Pages::new([1; 32]);
        let after = Keys::derive(&[7; 32]).session_ref("", "0123456789abcdef");
        let token = pages.issue(after, &[2; 32]);
        assert_eq!(pages.open(&token, &[2; 32]), Some(after));
        assert_eq!(pages.open(&token, &[3; 32]), None);
        assert_eq!(Pages::new([9; 32]).open(&token, &[2; 32]), None);
        for place in 0..token.len() {
            let mut garbled = token.clone().into_bytes();
            garbled[place] = if garbled[place] == b'A' { b'B' } else { b'A' };
            let garbled = String::from_utf8(garbled).unwrap();
            assert_eq!(pages.open(&garbled, &[2; 32]), None, "place {place}");
        }
        for garbage in ["", "short", "ä".repeat(22).as_str()] {
            assert_eq!(pages.open(garbage, &[2; 32]), None);
        }
    }
}
