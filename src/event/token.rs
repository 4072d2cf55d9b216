//! Resume tokens: a place in the log, bound to the log's epoch, to the caller's tenants and to the scope of the watch.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;

use super::Places;
use crate::{
    sabotage::{self, Fault},
    state::SessionRef,
};

/// Makes and reads tokens.
pub struct Tokens {
    key: [u8; 32],
    epoch: Arc<Mutex<[u8; 16]>>,
}

/// A place in the log, and what the watch has come to follow by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The last events that were seen, or were not of interest.
    pub places: Places,
    /// Whether the initial state was not complete yet: whoever resumes here gets all of it again.
    pub initial: bool,
    /// The sessions that go on in the place of those that the scope names. `None` if they are more than a token holds.
    pub followed: Option<Vec<SessionRef>>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is not one of ours, or not for this caller and scope.
    Invalid,
    /// It is of a log that is gone.
    OtherEpoch,
}

/// version, flags, epoch, how many streams; then come their numbers and the followed refs.
const HEAD: usize = 1 + 1 + 16 + 1;
const NUMBER: usize = 8;
const REF: usize = 16;
/// MAC, checksum.
const TAIL: usize = 32 + 4;
const VERSION: u8 = 2;
const INITIAL: u8 = 1;
const FOLLOWS_MORE: u8 = 2;
/// So many bytes fit into the 1,024 characters that DESIGN.md allows.
const LONGEST: usize = 718;

impl Tokens {
    /// Tokens under a key, for the log of an epoch.
    #[must_use]
    pub fn new(key: [u8; 32], epoch: [u8; 16]) -> Self {
        Self::sharing(key, Arc::new(Mutex::new(epoch)))
    }

    /// Tokens under a key, for a log whose epoch changes when it begins anew: older tokens name no place in it then.
    #[must_use]
    pub fn sharing(key: [u8; 32], epoch: Arc<Mutex<[u8; 16]>>) -> Self {
        Self { key, epoch }
    }

    /// The epoch of the log.
    #[must_use]
    pub fn epoch(&self) -> [u8; 16] {
        *self.epoch.lock()
    }

    /// The token of a place, for a caller and scope of which `binding` is a digest.
    #[must_use]
    pub fn issue(
        &self,
        places: &[u64],
        initial: bool,
        followed: impl ExactSizeIterator<Item = SessionRef>,
        binding: &[u8; 32],
    ) -> String {
        let fixed = HEAD + NUMBER * places.len() + TAIL;
        let follows_more = followed.len() > LONGEST.saturating_sub(fixed) / REF;
        let mut token = Vec::with_capacity(fixed);
        token.push(VERSION);
        token.push(if initial { INITIAL } else { 0 } | if follows_more { FOLLOWS_MORE } else { 0 });
        token.extend_from_slice(&self.epoch());
        token.push(u8::try_from(places.len()).unwrap_or(0));
        for place in places {
            token.extend_from_slice(&place.to_le_bytes());
        }
        if !follows_more && !sabotage::on(Fault::FollowedForgotten) {
            followed.for_each(|reference| token.extend_from_slice(reference.as_bytes()));
        }
        token.extend_from_slice(self.mac(&token, binding).as_bytes());
        token.extend_from_slice(&checksum(&token));
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Reads a token. The checksum needs no key: so a token of an earlier process, whose key is gone, is told from garbage.
    pub fn open(&self, token: &str, binding: &[u8; 32]) -> Result<Position, TokenError> {
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError::Invalid)?;
        let (signed, check) = token.split_last_chunk::<4>().ok_or(TokenError::Invalid)?;
        if checksum(signed) != *check {
            return Err(TokenError::Invalid);
        }
        if signed.first().is_some_and(|version| *version < VERSION) {
            // Of an earlier version, and so of an earlier log.
            return Err(TokenError::OtherEpoch);
        }
        let (content, mac) = signed.split_last_chunk::<32>().ok_or(TokenError::Invalid)?;
        let (head, after) = content.split_first_chunk::<HEAD>().ok_or(TokenError::Invalid)?;
        let numbers = after.split_at_checked(NUMBER * usize::from(head[HEAD - 1]));
        let (numbers, followed) = numbers.ok_or(TokenError::Invalid)?;
        let (refs, rest) = followed.as_chunks::<REF>();
        let flags = head[1];
        if head[0] != VERSION || flags > INITIAL | FOLLOWS_MORE || !rest.is_empty() {
            return Err(TokenError::Invalid);
        }
        if head[2..18] != self.epoch() {
            return Err(TokenError::OtherEpoch);
        }
        // blake3 compares its hashes in constant time.
        let ours = blake3::Hash::from_bytes(*mac) == self.mac(content, binding);
        if !ours && !sabotage::on(Fault::TokenForAnyScope) {
            return Err(TokenError::Invalid);
        }
        let places = numbers.as_chunks::<NUMBER>().0.iter();
        let refs = refs.iter().map(|bytes| SessionRef::from_bytes(*bytes));
        Ok(Position {
            places: places.map(|number| u64::from_le_bytes(*number)).collect(),
            initial: flags & INITIAL != 0,
            followed: (flags & FOLLOWS_MORE == 0).then(|| refs.collect()),
        })
    }

    fn mac(&self, content: &[u8], binding: &[u8; 32]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(content).update(binding);
        hasher.finalize()
    }
}

fn checksum(signed: &[u8]) -> [u8; 4] {
    let mut check = [0; 4];
    blake3::Hasher::new().update(signed).finalize_xof().fill(&mut check);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(count: u8) -> impl ExactSizeIterator<Item = SessionRef> {
        (0..count).map(|byte| SessionRef::from_bytes([byte; 16]))
    }

    #[test]
    fn g12_g17_a_token_opens_only_for_its_own_caller_and_scope() {
        let tokens = Tokens::new([1; 32], [2; 16]);
        for (streams, most) in [(1, 40), (16, 33), (64, 9)] {
            for (count, initial) in [(0, false), (1, true), (most, false), (most + 1, true), (255, false)] {
                let places = Places::from_elem(7, streams);
                let token = tokens.issue(&places, initial, refs(count), &[3; 32]);
                assert!(token.len() <= 1024);
                let place = Position {
                    places,
                    initial,
                    followed: (count <= most).then(|| refs(count).collect()),
                };
                assert_eq!(tokens.open(&token, &[3; 32]), Ok(place));
                assert_eq!(tokens.open(&token, &[4; 32]), Err(TokenError::Invalid));
                let after_restart = Tokens::new([9; 32], [8; 16]);
                assert_eq!(after_restart.open(&token, &[3; 32]), Err(TokenError::OtherEpoch));
            }
        }
    }

    #[test]
    fn g12_no_changed_byte_goes_unnoticed() {
        let tokens = Tokens::new([1; 32], [2; 16]);
        let token = tokens.issue(&[7], false, refs(2), &[3; 32]).into_bytes();
        for place in 0..token.len() {
            let mut garbled = token.clone();
            garbled[place] = if garbled[place] == b'A' { b'B' } else { b'A' };
            let garbled = String::from_utf8(garbled).expect("ASCII");
            assert_eq!(
                tokens.open(&garbled, &[3; 32]),
                Err(TokenError::Invalid),
                "place {place}"
            );
        }
    }
}
