//! Resume tokens: a place in the log, bound to the log's epoch, to the caller's tenants and to the scope of the watch.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::sabotage::{self, Fault};

/// Makes and reads tokens.
pub struct Tokens {
    key: [u8; 32],
    epoch: [u8; 16],
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last event that was seen, or was not of interest.
    pub seq: u64,
    /// Whether the initial state was not complete yet: whoever resumes here gets all of it again.
    pub initial: bool,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is not one of ours, or not for this caller and scope.
    Invalid,
    /// It is of a log that is gone.
    OtherEpoch,
}

/// version, flags, epoch, seq, MAC, checksum.
const LENGTH: usize = 1 + 1 + 16 + 8 + 32 + 4;
const VERSION: u8 = 1;

impl Tokens {
    /// Tokens under a key, for the log of an epoch.
    #[must_use]
    pub fn new(key: [u8; 32], epoch: [u8; 16]) -> Self {
        Self { key, epoch }
    }

    /// The token of a place, for a caller and scope of which `binding` is a digest.
    #[must_use]
    pub fn issue(&self, position: Position, binding: &[u8; 32]) -> String {
        let mut token = Vec::with_capacity(LENGTH);
        token.push(VERSION);
        token.push(u8::from(position.initial));
        token.extend_from_slice(&self.epoch);
        token.extend_from_slice(&position.seq.to_le_bytes());
        token.extend_from_slice(self.mac(&token, binding).as_bytes());
        token.extend_from_slice(&checksum(&token));
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Reads a token. The checksum needs no key: so a token of an earlier process, whose key is gone, is told from garbage.
    pub fn open(&self, token: &str, binding: &[u8; 32]) -> Result<Position, TokenError> {
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError::Invalid)?;
        let token: [u8; LENGTH] = token.try_into().map_err(|_| TokenError::Invalid)?;
        let (signed, check) = token.split_at(LENGTH - 4);
        let (content, mac) = signed.split_at(LENGTH - 4 - 32);
        if checksum(signed) != check || content[0] != VERSION || content[1] > 1 {
            return Err(TokenError::Invalid);
        }
        if content[2..18] != self.epoch {
            return Err(TokenError::OtherEpoch);
        }
        // blake3 compares its hashes in constant time.
        let ours = blake3::Hash::from_slice(mac).ok() == Some(self.mac(content, binding));
        if !ours && !sabotage::on(Fault::TokenForAnyScope) {
            return Err(TokenError::Invalid);
        }
        let mut seq = [0; 8];
        seq.copy_from_slice(&content[18..]);
        Ok(Position {
            seq: u64::from_le_bytes(seq),
            initial: content[1] == 1,
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

    const PLACE: Position = Position { seq: 7, initial: false };

    #[test]
    fn g12_g17_a_token_opens_only_for_its_own_caller_and_scope() {
        let tokens = Tokens::new([1; 32], [2; 16]);
        let token = tokens.issue(PLACE, &[3; 32]);
        assert!(token.len() <= 1024);
        assert_eq!(tokens.open(&token, &[3; 32]), Ok(PLACE));
        assert_eq!(tokens.open(&token, &[4; 32]), Err(TokenError::Invalid));
        let after_restart = Tokens::new([9; 32], [8; 16]);
        assert_eq!(after_restart.open(&token, &[3; 32]), Err(TokenError::OtherEpoch));
    }

    #[test]
    fn g12_no_changed_byte_goes_unnoticed() {
        let tokens = Tokens::new([1; 32], [2; 16]);
        let token = tokens.issue(PLACE, &[3; 32]).into_bytes();
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
