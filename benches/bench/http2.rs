//! A gRPC client that costs little: HTTP/2 frames written by hand, so that on a shared machine the load does not take the
//! processor from what it measures. It reads every grpc-status, which h2load does not.

use std::{collections::VecDeque, io, net::SocketAddr, path::PathBuf, str::FromStr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};
use tokio_util::either::Either;

/// Where a server listens: `ADDRESS:PORT` or `unix:PATH`.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp),
        }
    }
}

/// The calls of one connection.
pub(crate) trait Calls {
    /// Appends the message of the next call; answers false if there are no more.
    fn request(&mut self, message: &mut Vec<u8>) -> bool;

    /// Something was read from the connection: what follows came now.
    fn woke(&mut self) {}

    /// A message came on a stream.
    fn message(&mut self, stream: u32, message: &[u8]);

    /// A call is over, with grpc-status 0 or not.
    fn over(&mut self, stream: u32, ok: bool);

    /// Whether to hang up though streams are open.
    fn enough(&self) -> bool {
        false
    }
}

/// How the calls of one connection are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a> {
    /// `/package.Service/Method`.
    pub(crate) path: &'a str,
    /// The `:authority`: [`LOCALHOST`], or what a client makes of a socket's path.
    pub(crate) authority: &'a str,
    /// How many calls at a time.
    pub(crate) in_flight: usize,
    /// How much the server may send on a stream before anybody reads: 0 is a client that never reads.
    pub(crate) window: u32,
}

/// A good authority.
pub(crate) const LOCALHOST: &str = "localhost";

/// The largest window that there is: nobody waits for us.
pub(crate) const OPEN: u32 = i32::MAX as u32;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of DATA and HEADERS.
const END_STREAM: u8 = 1;
/// Of HEADERS.
const END_HEADERS: u8 = 4;
/// Of SETTINGS and PING.
const ACK: u8 = 1;

struct Stream {
    /// The beginning of a message whose end has not come.
    partial: Vec<u8>,
    ok: bool,
}

struct Connection<'a, C> {
    calls: &'a mut C,
    out: Vec<u8>,
    /// Open streams by number; the first is `first`.
    streams: VecDeque<Option<Stream>>,
    first: u32,
    open: usize,
    headers: Headers,
    unacknowledged: u32,
}

/// Makes calls on a connection of its own until there are no more.
pub(crate) async fn call<C: Calls>(target: &Target, options: Options<'_>, calls: &mut C) -> io::Result<()> {
    let mut io = match target {
        Target::Tcp(address) => {
            let io = TcpStream::connect(address).await?;
            io.set_nodelay(true)?;
            Either::Left(io)
        }
        Target::Unix(path) => Either::Right(UnixStream::connect(path).await?),
    };
    let mut connection = Connection {
        calls,
        out: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        streams: VecDeque::new(),
        first: 1,
        open: 0,
        headers: Headers::default(),
        unacknowledged: 0,
    };
    let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
    settings.extend_from_slice(&options.window.to_be_bytes());
    frame(&mut connection.out, SETTINGS, 0, 0, &settings);
    let wide = OPEN - 65_535;
    frame(&mut connection.out, WINDOW_UPDATE, 0, 0, &wide.to_be_bytes());

    let mut input = vec![0; 256 * 1024];
    let mut end = 0;
    let mut more = true;
    let mut body = Vec::new();
    loop {
        while more && connection.open < options.in_flight {
            body.clear();
            body.extend_from_slice(&[0; 5]);
            more = connection.calls.request(&mut body);
            if more {
                connection.send(&options, &mut body);
            }
        }
        io.write_all(&connection.out).await?;
        connection.out.clear();
        if connection.calls.enough() || (!more && connection.open == 0) {
            return Ok(());
        }
        let read = io.read(&mut input[end..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        end += read;
        connection.calls.woke();
        let mut start = 0;
        while let Some(length) = frame_length(&input[start..end]) {
            connection.read(&input[start..start + length])?;
            start += length;
        }
        input.copy_within(start..end, 0);
        end -= start;
    }
}

impl<C: Calls> Connection<'_, C> {
    fn send(&mut self, options: &Options<'_>, body: &mut [u8]) {
        let stream = self.first + 2 * self.streams.len() as u32;
        let length = (body.len() - 5) as u32;
        body[1..5].copy_from_slice(&length.to_be_bytes());
        let end_headers = END_HEADERS;
        if stream == 1 {
            frame(&mut self.out, HEADERS, end_headers, stream, &first_headers(options));
        } else {
            // Method and scheme of the static table; path, authority, content-type and te of the dynamic one.
            let block = [0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
            frame(&mut self.out, HEADERS, end_headers, stream, &block);
        }
        frame(&mut self.out, DATA, END_STREAM, stream, body);
        self.streams.push_back(Some(Stream {
            partial: Vec::new(),
            ok: false,
        }));
        self.open += 1;
    }

    fn read(&mut self, frame_bytes: &[u8]) -> io::Result<()> {
        let (kind, flags) = (frame_bytes[3], frame_bytes[4]);
        let stream = u32::from_be_bytes([frame_bytes[5], frame_bytes[6], frame_bytes[7], frame_bytes[8]]);
        let payload = &frame_bytes[9..];
        match kind {
            DATA => {
                self.data(stream, payload);
                self.unacknowledged += payload.len() as u32;
                if self.unacknowledged > OPEN / 2 {
                    frame(&mut self.out, WINDOW_UPDATE, 0, 0, &self.unacknowledged.to_be_bytes());
                    self.unacknowledged = 0;
                }
            }
            HEADERS => {
                let ok = self.headers.status_is_ok(payload);
                if let (Some(ok), Some(open)) = (ok, self.stream(stream)) {
                    open.ok = ok;
                }
            }
            SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            GO_AWAY => return Err(io::Error::other("the server sent GOAWAY")),
            _ => {}
        }
        let over = kind == RESET || (matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0);
        if over {
            self.close(stream);
        }
        Ok(())
    }

    fn stream(&mut self, stream: u32) -> Option<&mut Stream> {
        let place = stream.checked_sub(self.first)? / 2;
        self.streams.get_mut(place as usize)?.as_mut()
    }

    fn data(&mut self, stream: u32, payload: &[u8]) {
        let Some(open) = self.stream(stream) else { return };
        let mut partial = std::mem::take(&mut open.partial);
        let mut rest = if partial.is_empty() {
            payload
        } else {
            partial.extend_from_slice(payload);
            &partial
        };
        while rest.len() >= 5 {
            let length = 5 + u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
            if rest.len() < length {
                break;
            }
            self.calls.message(stream, &rest[5..length]);
            rest = &rest[length..];
        }
        if !rest.is_empty() {
            let rest = rest.to_vec();
            if let Some(open) = self.stream(stream) {
                open.partial = rest;
            }
        }
    }

    fn close(&mut self, stream: u32) {
        let Some(place) = stream.checked_sub(self.first) else {
            return;
        };
        let Some(closed) = self.streams.get_mut(place as usize / 2).and_then(Option::take) else {
            return;
        };
        self.open -= 1;
        self.calls.over(stream, closed.ok);
        while let Some(None) = self.streams.front() {
            self.streams.pop_front();
            self.first += 2;
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The length of the first frame, if all of it is here.
fn frame_length(input: &[u8]) -> Option<usize> {
    let header = input.get(..9)?;
    let length = 9 + u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    (input.len() >= length).then_some(length)
}

/// The header block of a connection's first call; it fills the dynamic table for the others.
fn first_headers(options: &Options<'_>) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: Result<u8, &str>, value: &str| {
        match name {
            Ok(known) => block.push(0x40 | known),
            Err(name) => {
                block.extend_from_slice(&[0x40, name.len() as u8]);
                block.extend_from_slice(name.as_bytes());
            }
        }
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    literal(Ok(4), options.path);
    literal(Ok(1), options.authority);
    literal(Ok(31), "application/grpc");
    literal(Err("te"), "trailers");
    block
}

/// As much of HPACK (RFC 7541) as it takes to see grpc-status: which entries of the dynamic table have that name, and which
/// of them the value 0.
#[derive(Default)]
struct Headers(VecDeque<Option<bool>>);

const STATIC_ENTRIES: usize = 61;
const NAME: (&[u8], &[u8]) = (b"grpc-status", &[0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f]);
const ZERO: (&[u8], &[u8]) = (b"0", &[0x07]);

impl Headers {
    /// Whether the grpc-status is 0, if the block has one.
    fn status_is_ok(&mut self, mut block: &[u8]) -> Option<bool> {
        let mut found = None;
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                found = found.or(self.entry(index));
                continue;
            }
            if first & 0xe0 == 0x20 {
                integer(&mut block, 5)?;
                continue;
            }
            let keeps = first & 0x40 != 0;
            let index = integer(&mut block, if keeps { 6 } else { 4 })?;
            let named = if index == 0 {
                is(string(&mut block)?, NAME)
            } else {
                self.entry(index).is_some()
            };
            let zero = is(string(&mut block)?, ZERO);
            let entry = named.then_some(zero);
            found = found.or(entry);
            if keeps {
                self.0.push_front(entry);
                // Longer than any table of the default size.
                self.0.truncate(128);
            }
        }
        found
    }

    fn entry(&self, index: usize) -> Option<bool> {
        let place = index.checked_sub(STATIC_ENTRIES + 1)?;
        self.0.get(place).copied().flatten()
    }
}

fn is((huffman, bytes): (bool, &[u8]), (plain, coded): (&[u8], &[u8])) -> bool {
    bytes == if huffman { coded } else { plain }
}

fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let (first, rest) = block.split_first()?;
    *block = rest;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let (next, rest) = block.split_first()?;
        *block = rest;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn string<'a>(block: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let huffman = block.first()? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some((huffman, bytes))
}
