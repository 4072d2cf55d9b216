//! Repairs what some clients say at a Unix socket: an `:authority` that is the socket's path.
//!
//! C-core (Python, Ruby, C++, PHP), Java and Swift send the path of a `unix:` target as `:authority`, which no URI has there, and h2
//! answers PROTOCOL_ERROR (grpc/grpc#38142, grpc/grpc-java#12664, hyperium/h2#487); so does an Envoy cluster with a `/` in its name.
//! Nothing here asks for the authority, so what is invalid in it is replaced before h2 sees it.
//!
//! In place: each character that is not a letter, a digit, `-` or `.` becomes `0`, so that the value keeps its length. A client's table
//! of headers (HPACK, RFC 7541 section 2.3.2) and h2's then stay the same size, and later requests, which name the value by its place in
//! the table, need no repair and no table is kept here: docs/adr/0025-authority-repaired-in-place.md.
//!
//! A connection whose first request is good is never looked at again.

use std::ops::Range;

use httlib_huffman::DecoderSpeed;
use http::uri::Authority;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`: RFC 9113 section 3.4.
pub(super) const PREFACE: usize = 24;

/// Length, type, flags and stream of a frame: RFC 9113 section 4.1.
const FRAME_HEADER: usize = 9;

/// The largest frame that the server takes.
const LARGEST_FRAME: usize = 16 * 1024;

const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Where `:authority` is in HPACK's static table: RFC 7541 appendix A.
const AUTHORITY_INDEX: usize = 1;

/// What a client sends, on its way to h2: frames that begin a request are held back until they are whole, and repaired.
#[derive(Debug, Default)]
pub struct Repair {
    /// What has come and is not judged yet.
    held: Vec<u8>,
    /// What may go on, from `gone` on.
    ready: Vec<u8>,
    gone: usize,
    preface_seen: bool,
    /// How many bytes of the present frame are none of our business.
    pass: usize,
    /// Whether one request needed repair: then the others are looked at too.
    repairs: bool,
    /// Whether nothing needs to be looked at any more.
    over: bool,
}

impl Repair {
    /// Takes what has come.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        while !self.over && self.step() {}
        if self.over {
            self.ready.append(&mut self.held);
        }
    }

    /// Nothing more will come: what is held goes on as it is.
    pub fn end(&mut self) {
        self.over = true;
        self.ready.append(&mut self.held);
    }

    /// What may go on to h2.
    pub fn ready(&self) -> &[u8] {
        &self.ready[self.gone..]
    }

    /// So much has gone on.
    pub fn consume(&mut self, count: usize) {
        self.gone += count;
        if self.gone == self.ready.len() {
            self.ready.clear();
            self.gone = 0;
        }
    }

    /// Whether all has gone on, and what comes may go on without being looked at.
    pub fn is_over(&self) -> bool {
        self.over && self.ready.is_empty()
    }

    /// Looks at the next part, if it is whole.
    fn step(&mut self) -> bool {
        if self.pass > 0 {
            let count = self.pass.min(self.held.len());
            self.pass -= count;
            self.let_go(count);
            return count > 0;
        }
        if !self.preface_seen {
            if self.held.len() < PREFACE {
                return false;
            }
            self.preface_seen = true;
            self.let_go(PREFACE);
            return true;
        }
        let Some((&[l2, l1, l0, kind, ..], _)) = self.held.split_first_chunk::<FRAME_HEADER>() else {
            return false;
        };
        let length = usize::from(l2) << 16 | usize::from(l1) << 8 | usize::from(l0);
        // What is too large is h2's to refuse.
        if kind != HEADERS || length > LARGEST_FRAME {
            self.pass = FRAME_HEADER + length;
            return true;
        }
        let whole = FRAME_HEADER + length;
        if self.held.len() < whole {
            return false;
        }
        match repaired(&self.held[..whole]) {
            Some(frame) => {
                self.repairs = true;
                self.ready.extend_from_slice(&frame);
                self.held.drain(..whole);
            }
            None => {
                self.over = !self.repairs;
                self.let_go(whole);
            }
        }
        true
    }

    fn let_go(&mut self, count: usize) {
        self.ready.extend(self.held.drain(..count));
    }
}

/// A HEADERS frame with a valid authority, if it has an invalid one. What cannot be read is left to h2 to refuse.
fn repaired(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at_checked(FRAME_HEADER)?;
    let flags = header[4];
    let padding = if flags & PADDED == 0 {
        0
    } else {
        usize::from(*payload.first()?)
    };
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = payload.len().checked_sub(padding)?;
    let block = payload.get(before..end)?;
    let place = Literal::of_authority(block)?;
    let text = place.replacement(block)?;

    let mut whole = Vec::with_capacity(frame.len());
    whole.extend_from_slice(header);
    whole.extend_from_slice(&payload[..before]);
    whole.extend_from_slice(&block[..place.start]);
    whole.extend_from_slice(&text);
    whole.extend_from_slice(&block[place.text.end..]);
    whole.extend_from_slice(&payload[end..]);
    let length = u32::try_from(whole.len() - FRAME_HEADER).ok()?;
    whole[..3].copy_from_slice(&length.to_be_bytes()[1..]);
    Some(whole)
}

/// Where the value of a header is in a block.
struct Literal {
    /// Where its length begins.
    start: usize,
    /// Where its bytes are.
    text: Range<usize>,
    /// Whether they are Huffman's code of the text.
    huffman: bool,
}

impl Literal {
    /// The authority, where the block spells it out.
    fn of_authority(block: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            let first = *block.get(at)?;
            // RFC 7541 section 6: an entry of a table; a literal that becomes an entry; a new size of the table; a literal that
            // becomes none.
            let prefix = match first {
                0x80.. => {
                    integer(block, &mut at, 7)?;
                    continue;
                }
                0x40.. => 6,
                0x20.. => {
                    integer(block, &mut at, 5)?;
                    continue;
                }
                _ => 4,
            };
            let is_authority = match integer(block, &mut at, prefix)? {
                0 => Self::read(block, &mut at)?.text(block)? == b":authority",
                index => index == AUTHORITY_INDEX,
            };
            let value = Self::read(block, &mut at)?;
            if is_authority {
                return Some(value);
            }
        }
    }

    /// Reads a string: RFC 7541 section 5.2.
    fn read(block: &[u8], at: &mut usize) -> Option<Self> {
        let start = *at;
        let huffman = block.get(start)? & 0x80 != 0;
        let length = integer(block, at, 7)?;
        let text = *at..at.checked_add(length)?;
        block.get(text.clone())?;
        *at = text.end;
        Some(Self { start, text, huffman })
    }

    fn text(&self, block: &[u8]) -> Option<Vec<u8>> {
        let bytes = &block[self.text.clone()];
        if !self.huffman {
            return Some(bytes.to_vec());
        }
        let mut text = Vec::with_capacity(bytes.len() * 2);
        httlib_huffman::decode(bytes, &mut text, DecoderSpeed::OneBit).ok()?;
        Some(text)
    }

    /// The string that takes its place, length and all, if it is no authority. It is as long when it is decoded, and never longer
    /// as it is sent: no character has a shorter code than `0`.
    fn replacement(&self, block: &[u8]) -> Option<Vec<u8>> {
        let mut text = self.text(block)?;
        // For one that is empty there is none of its length.
        if text.is_empty() || Authority::try_from(text.as_slice()).is_ok() {
            return None;
        }
        for byte in &mut text {
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
                *byte = b'0';
            }
        }
        let mut bytes = Vec::new();
        if self.huffman {
            httlib_huffman::encode(&text, &mut bytes).ok()?;
        } else {
            bytes = text;
        }
        let mut string = Vec::with_capacity(bytes.len() + 3);
        push_length(&mut string, bytes.len(), self.huffman);
        string.append(&mut bytes);
        Some(string)
    }
}

/// Reads an integer with a prefix of so many bits: RFC 7541 section 5.1. None is larger than a frame.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes the length of a string.
fn push_length(string: &mut Vec<u8>, length: usize, huffman: bool) {
    let flag = if huffman { 0x80 } else { 0 };
    let Some(mut rest) = length.checked_sub(0x7f) else {
        string.push(flag | length as u8);
        return;
    };
    string.push(flag | 0x7f);
    while rest >= 0x80 {
        string.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    string.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use loona_hpack::Decoder;
    use proptest::prelude::*;

    use super::*;

    type Header = (Vec<u8>, Vec<u8>);

    /// How a client may send a header.
    #[derive(Debug, Clone, Copy)]
    enum Form {
        /// It becomes an entry of the table.
        Indexed,
        /// It becomes none.
        Plain,
        /// It may become none on the way either.
        Never,
        /// As an entry, with its name spelt out.
        Named,
    }

    fn string(block: &mut Vec<u8>, text: &[u8], huffman: bool) {
        let mut bytes = Vec::new();
        if huffman {
            httlib_huffman::encode(text, &mut bytes).unwrap();
        } else {
            bytes.extend_from_slice(text);
        }
        push_length(block, bytes.len(), huffman);
        block.extend_from_slice(&bytes);
    }

    fn authority(block: &mut Vec<u8>, value: &[u8], form: Form, huffman: bool) {
        match form {
            Form::Indexed => block.push(0x41),
            Form::Plain => block.push(0x01),
            Form::Never => block.push(0x11),
            Form::Named => {
                block.push(0x40);
                string(block, b":authority", huffman);
            }
        }
        string(block, value, huffman);
    }

    /// A frame, with padding and priority if asked for.
    fn frame(kind: u8, block: &[u8], padding: Option<u8>, priority: bool) -> Vec<u8> {
        let mut payload = Vec::new();
        payload.extend(padding);
        if priority {
            payload.extend([0, 0, 0, 0, 16]);
        }
        payload.extend_from_slice(block);
        payload.extend(vec![0; usize::from(padding.unwrap_or(0))]);
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        let flags = 0x4 | if padding.is_some() { PADDED } else { 0 } | if priority { PRIORITY } else { 0 };
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    const START: &[u8; PREFACE] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// What h2 gets of a connection that comes in pieces.
    fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut repair = Repair::default();
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            repair.feed(piece);
            out.extend_from_slice(repair.ready());
            repair.consume(repair.ready().len());
        }
        repair.end();
        out.extend_from_slice(repair.ready());
        out
    }

    /// The headers of each request of a connection, by a decoder of its own.
    fn requests(connection: &[u8]) -> Vec<Vec<Header>> {
        let mut decoder = Decoder::new();
        let mut rest = &connection[PREFACE..];
        let mut requests = Vec::new();
        while let Some((header, after)) = rest.split_at_checked(FRAME_HEADER) {
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let payload = &after[..length];
            rest = &after[length..];
            if header[3] == HEADERS {
                let padded = header[4] & PADDED != 0;
                let end = payload.len() - if padded { usize::from(payload[0]) } else { 0 };
                let start = usize::from(padded) + if header[4] & PRIORITY != 0 { 5 } else { 0 };
                requests.push(decoder.decode(&payload[start..end]).unwrap());
            }
        }
        requests
    }

    #[test]
    fn the_path_of_a_socket_is_replaced_and_what_follows_needs_nothing() {
        for huffman in [false, true] {
            let mut first = vec![0x83, 0x86];
            authority(&mut first, b"%2Frun%2Fsession-sidecar.sock", Form::Indexed, huffman);
            let second = [0x83, 0x86, 0xbe];
            let connection = [
                START.as_slice(),
                &frame(HEADERS, &first, None, false),
                &frame(HEADERS, &second, None, false),
            ]
            .concat();
            let seen = requests(&through(&connection, usize::MAX));
            for request in seen {
                assert_eq!(request[2].0, b":authority");
                assert_eq!(request[2].1, b"02Frun02Fsession-sidecar.sock");
            }
        }
    }

    #[test]
    fn nothing_is_looked_at_after_a_good_first_request() {
        let mut block = Vec::new();
        authority(&mut block, b"localhost:50151", Form::Indexed, true);
        let mut repair = Repair::default();
        repair.feed(&[START.as_slice(), &frame(HEADERS, &block, None, false)].concat());
        repair.consume(repair.ready().len());
        assert!(repair.is_over());
    }

    fn forms() -> impl Strategy<Value = Form> {
        prop_oneof![
            Just(Form::Indexed),
            Just(Form::Plain),
            Just(Form::Never),
            Just(Form::Named)
        ]
    }

    proptest! {
        #[test]
        fn only_invalid_authorities_change_whatever_form_they_come_in(
            sent in prop::collection::vec(
                ("[ -~]{1,200}", forms(), any::<bool>(), prop::option::of(0_u8..20), any::<bool>(), any::<bool>()), 1..12),
            piece in 1_usize..200,
        ) {
            let mut connection = START.to_vec();
            for (value, form, huffman, padding, priority, data) in &sent {
                let mut block = vec![0x83];
                authority(&mut block, value.as_bytes(), *form, *huffman);
                // A header after it, and one of the table's latest entries if there is one.
                block.extend([0x40, 1, b'a', 1, b'b', 0xbe]);
                connection.extend(frame(HEADERS, &block, *padding, *priority));
                if *data {
                    connection.extend(frame(0, value.as_bytes(), None, false));
                }
            }
            let seen = through(&connection, piece);
            prop_assert!(seen.len() <= connection.len());
            let first_is_good = Authority::try_from(sent[0].0.as_str()).is_ok();
            for (before, after) in requests(&connection).iter().zip(requests(&seen)) {
                prop_assert_eq!(before.len(), after.len());
                for (before, after) in before.iter().zip(after) {
                    let good = before.0 != b":authority" || Authority::try_from(before.1.as_slice()).is_ok();
                    if good || first_is_good {
                        prop_assert_eq!(before, &after);
                    } else {
                        prop_assert_eq!(before.1.len(), after.1.len());
                        prop_assert!(Authority::try_from(after.1.as_slice()).is_ok());
                    }
                }
            }
            prop_assert_eq!(requests(&connection).len(), requests(&seen).len());
        }

        #[test]
        fn what_cannot_be_read_goes_on_as_it_is(
            frames in prop::collection::vec((0_u8..3, prop::collection::vec(any::<u8>(), 0..60), any::<u8>()), 0..8),
            piece in 1_usize..50,
        ) {
            let mut connection = START.to_vec();
            for (kind, payload, flags) in &frames {
                let mut frame = frame(*kind, payload, None, false);
                frame[4] = *flags;
                connection.extend(frame);
            }
            let seen = through(&connection, piece);
            prop_assert!(seen.len() <= connection.len());
            let readable = |payload: &[u8], flags: u8| {
                let mut whole = frame(HEADERS, payload, None, false);
                whole[4] = flags;
                repaired(&whole).is_some()
            };
            if !frames.iter().any(|(kind, payload, flags)| *kind == HEADERS && readable(payload, *flags)) {
                prop_assert_eq!(seen, connection);
            }
        }

        #[test]
        fn bytes_of_any_kind_are_passed_on(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50) {
            prop_assert!(through(&bytes, piece).len() <= bytes.len());
        }
    }
}
