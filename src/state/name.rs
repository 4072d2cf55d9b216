//! Names: how a raw session id, a bearer secret, becomes a ref that is safe to keep and to show (G15).

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::record::RequestId;

/// 128 bits of keyed BLAKE3 over a tenant and a session id. Names a session; is never a credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionRef([u8; 16]);

impl SessionRef {
    /// How many characters it has when it is shown.
    pub const LENGTH: usize = 22;

    /// Half of its bits as a number: as good as any hash of it, and nobody without the key can choose them.
    #[must_use]
    pub fn word(self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[8..]);
        u64::from_le_bytes(word)
    }

    /// Its bytes, for a token of ours.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The ref of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// One of so many places, by other bits than those of [`SessionRef::word`]. Places are in the order of refs, so that a walk
    /// from place to place meets them in order.
    #[must_use]
    pub fn shard(self, shards: usize) -> usize {
        let first = u64::from(u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]));
        ((first * shards as u64) >> 32) as usize
    }
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; Self::LENGTH];
        URL_SAFE_NO_PAD
            .encode_slice(self.0, &mut text)
            .map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not a ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {} characters of base64url", SessionRef::LENGTH)]
pub struct NotARef;

impl FromStr for SessionRef {
    type Err = NotARef;

    fn from_str(text: &str) -> Result<Self, NotARef> {
        let mut bytes = [0; 16];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| NotARef)?;
        if length == bytes.len() {
            Ok(Self(bytes))
        } else {
            Err(NotARef)
        }
    }
}

/// The keys under which ids are hashed. All come from one master key.
pub struct Keys {
    refs: [u8; 32],
    ids: [u8; 32],
    rotations: [u8; 32],
    requests: [u8; 32],
    tokens: [u8; 32],
    pages: [u8; 32],
    subjects: [u8; 32],
}

impl Keys {
    /// The keys that follow from a master key: at least 32 random bytes.
    #[must_use]
    pub fn derive(master: &[u8]) -> Self {
        Self {
            refs: blake3::derive_key("session-sidecar 2026 session refs", master),
            ids: blake3::derive_key("session-sidecar 2026 ids made from request ids", master),
            rotations: blake3::derive_key("session-sidecar 2026 ids made from rotation requests", master),
            requests: blake3::derive_key("session-sidecar 2026 remembered requests", master),
            tokens: blake3::derive_key("session-sidecar 2026 resume tokens", master),
            pages: blake3::derive_key("session-sidecar 2026 page tokens", master),
            subjects: blake3::derive_key("session-sidecar 2026 subjects in the audit log", master),
        }
    }

    /// The ref of a session.
    #[must_use]
    pub fn session_ref(&self, tenant: &str, session_id: &str) -> SessionRef {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&pair(&self.refs, tenant, session_id).as_bytes()[..16]);
        SessionRef(bytes)
    }

    /// The session id for a Create that gave a request id and no session id: the same for a retry, though nobody kept it.
    #[must_use]
    pub fn id_for_request(&self, tenant: &str, request_id: &str) -> String {
        URL_SAFE_NO_PAD.encode(pair(&self.ids, tenant, request_id).as_bytes())
    }

    /// The same for a Rotate of the session `from`.
    #[must_use]
    pub fn id_for_rotation(&self, tenant: &str, from: SessionRef, request_id: &str) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.rotations);
        hasher
            .update(pair(&self.ids, tenant, request_id).as_bytes())
            .update(&from.0);
        URL_SAFE_NO_PAD.encode(hasher.finalize().as_bytes())
    }

    /// What is remembered of a request: hashes of its id and of all else that it says.
    #[must_use]
    pub fn request(&self, request_id: &str, content: &[u8]) -> RequestId {
        RequestId {
            key: first_word(&blake3::keyed_hash(&self.requests, request_id.as_bytes())),
            content: first_word(&blake3::keyed_hash(&self.requests, content)),
        }
    }

    /// What stands for a subject in an audit log that must not name people: the same person gives the same text.
    #[must_use]
    pub fn subject_hash(&self, tenant: &str, subject: &str) -> String {
        URL_SAFE_NO_PAD.encode(&pair(&self.subjects, tenant, subject).as_bytes()[..16])
    }

    /// The key of page tokens.
    #[must_use]
    pub fn pages(&self) -> [u8; 32] {
        self.pages
    }

    /// The key of resume tokens.
    #[must_use]
    pub fn tokens(&self) -> [u8; 32] {
        self.tokens
    }
}

/// Hashes two texts so that no other two texts give the same bytes: the first is at most 255 bytes long.
fn pair(key: &[u8; 32], first: &str, second: &str) -> blake3::Hash {
    // Nearly all fit into one block of the hash.
    if let Some(hash) = pair_within(&mut [0; blake3::BLOCK_LEN], key, first, second)
        .or_else(|| pair_within(&mut [0; 1 + 255 + 256], key, first, second))
    {
        return hash;
    }
    // Longer than the API lets in: still distinct.
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&[u8::MAX]).update(&first.len().to_le_bytes());
    hasher.update(first.as_bytes()).update(second.as_bytes()).finalize()
}

fn pair_within(buffer: &mut [u8], key: &[u8; 32], first: &str, second: &str) -> Option<blake3::Hash> {
    let bytes = buffer.get_mut(..1 + first.len() + second.len())?;
    bytes[0] = u8::try_from(first.len()).ok()?;
    bytes[1..=first.len()].copy_from_slice(first.as_bytes());
    bytes[1 + first.len()..].copy_from_slice(second.as_bytes());
    Some(blake3::keyed_hash(key, bytes))
}

fn first_word(hash: &blake3::Hash) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g17_a_tenant_and_an_id_cannot_be_shifted_into_each_other() {
        let keys = Keys::derive(&[7; 32]);
        assert_ne!(keys.session_ref("ab", "c"), keys.session_ref("a", "bc"));
        assert_ne!(keys.session_ref("", "abc"), keys.session_ref("a", "bc"));
    }

    #[test]
    fn g15_another_key_gives_another_ref() {
        let id = "0123456789abcdef";
        assert_ne!(
            Keys::derive(&[1; 32]).session_ref("", id),
            Keys::derive(&[2; 32]).session_ref("", id)
        );
    }

    #[test]
    fn a_ref_reads_back() {
        let reference = Keys::derive(&[7; 32]).session_ref("shop", "0123456789abcdef");
        let shown = reference.to_string();
        assert_eq!(shown.len(), SessionRef::LENGTH);
        assert_eq!(shown.parse(), Ok(reference));
        assert_eq!("too short".parse::<SessionRef>(), Err(NotARef));
    }
}
