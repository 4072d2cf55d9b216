//! Arbitrary bytes after the preface of HTTP/2, in pieces of a size that the first byte says, through the repair of `:authority`.
#![no_main]

use std::{env, sync::LazyLock};

// The file alone: the whole sidecar would take ten minutes to build like this. Its own tests are not built with it.
#[path = "../../../src/rpc/authority.rs"]
#[allow(dead_code)]
mod authority;

use authority::Repair;
use libfuzzer_sys::fuzz_target;
use loona_hpack::Decoder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What h2 gets of bytes that come in pieces of a size.
fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut repair = Repair::default();
    let mut out = Vec::with_capacity(bytes.len());
    for piece in bytes.chunks(piece) {
        repair.feed(piece);
        out.extend_from_slice(repair.ready());
        repair.consume(repair.ready().len());
    }
    repair.end();
    out.extend_from_slice(repair.ready());
    out
}

/// The blocks of the HEADERS frames, as far as frames can be read.
fn blocks(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(9) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let Some((payload, after)) = after.split_at_checked(length) else {
            break;
        };
        rest = after;
        if header[3] != 1 {
            continue;
        }
        let padded = header[4] & 8 != 0;
        let start = usize::from(padded) + if header[4] & 0x20 != 0 { 5 } else { 0 };
        let padding = if padded { payload.first().map_or(0, |count| usize::from(*count)) } else { 0 };
        let Some(end) = payload.len().checked_sub(padding).filter(|end| *end >= start) else {
            break;
        };
        blocks.push(payload[start..end].to_vec());
    }
    blocks
}

/// Whether each repair is spoilt, which must be noticed: else nothing that is tried comes to a repair.
static BREAKS: LazyLock<bool> = LazyLock::new(|| env::var_os("FUZZ_BREAKS").is_some());

fuzz_target!(|input: &[u8]| {
    let Some((piece, frames)) = input.split_first() else {
        return;
    };
    let sent = [PREFACE, frames].concat();
    let repaired = |piece| {
        let mut seen = through(&sent, piece);
        let place = seen.iter().zip(&sent).position(|(seen, sent)| seen != sent);
        if let Some(place) = place.filter(|_| *BREAKS) {
            seen[place] = b'<';
        }
        seen
    };
    let seen = repaired(usize::from(*piece) + 1);
    assert!(seen.len() <= sent.len(), "it grew");
    assert_eq!(seen, repaired(usize::MAX), "the pieces made a difference");

    // What a decoder of another author reads is the same but for the authority, which keeps its length.
    let (sent, seen) = (blocks(&sent[PREFACE.len()..]), blocks(&seen[PREFACE.len()..]));
    assert_eq!(sent.len(), seen.len());
    let (mut before, mut after) = (Decoder::new(), Decoder::new());
    for (sent, seen) in sent.iter().zip(&seen) {
        let Ok(sent) = before.decode(sent) else {
            break;
        };
        let seen = after.decode(seen).expect("what could be read can still be read");
        assert_eq!(sent.len(), seen.len());
        for (sent, seen) in sent.iter().zip(&seen) {
            assert_eq!(sent.0, seen.0);
            assert_eq!(sent.1.len(), seen.1.len());
            if sent.1 != seen.1 {
                assert!(http::uri::Authority::try_from(seen.1.as_slice()).is_ok(), "a replacement is no authority");
            }
        }
    }
});
