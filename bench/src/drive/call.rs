//! A call of gRPC on a connection of its own, as thin as what drives the peers that speak something else: frames are written
//! and read where they are, without a task or a lock. What loads a server shares its processors, and would be measured with it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The head of a frame: length, type, flags, stream.
const HEAD: usize = 9;
/// No frame of ours carries more.
const MAX_FRAME: usize = 16_384;
/// What a connection, and a stream, may send before it is told more.
const FIRST_WINDOW: i64 = 65_535;
/// What a reader has room for, in bytes: as much as a browser.
pub const WIDE: u32 = 6 << 20;
/// The head of a message: not compressed, length.
const PREFIX: usize = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// END_STREAM of DATA and HEADERS; ACK of SETTINGS and PING.
const END: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// One call: stream 1 of its connection.
pub struct Call {
    stream: TcpStream,
    heard: BytesMut,
    /// Of the answer: messages, the last of which may lack its end.
    answer: BytesMut,
    said: Vec<u8>,
    /// What may still be sent: on the connection, on the stream, and what a stream began with.
    room: (i64, i64, i64),
    window: u32,
    /// Bytes that were taken since the server was told that there is room for more.
    taken: u32,
    ended: bool,
}

impl Call {
    /// Calls `path` at `address`; `window` is what it takes in before it is read.
    pub async fn open(address: &str, path: &str, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        let mut call = Self {
            stream,
            heard: BytesMut::with_capacity(64 << 10),
            answer: BytesMut::new(),
            said: PREFACE.to_vec(),
            room: (FIRST_WINDOW, FIRST_WINDOW, FIRST_WINDOW),
            window,
            taken: 0,
            ended: false,
        };
        call.say(SETTINGS, 0, 0, &[&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat());
        if i64::from(window) > FIRST_WINDOW {
            call.say(WINDOW_UPDATE, 0, 0, &(window - FIRST_WINDOW as u32).to_be_bytes());
        }
        call.say(HEADERS, END_HEADERS, 1, &fields(address, path));
        call.flush().await;
        call
    }

    /// Sends a message; waits where the server has no room for it.
    pub async fn send(&mut self, message: &[u8]) {
        assert!(!self.ended, "the call is over");
        let mut whole = Vec::with_capacity(PREFIX + message.len());
        whole.put_u8(0);
        whole.put_u32(message.len() as u32);
        whole.extend_from_slice(message);
        let mut rest = &whole[..];
        while !rest.is_empty() {
            let room = self.room.0.min(self.room.1).max(0) as usize;
            let (part, after) = rest.split_at(rest.len().min(MAX_FRAME).min(room));
            if part.is_empty() {
                self.flush().await;
                self.hear().await;
                continue;
            }
            self.say(DATA, 0, 1, part);
            self.room.0 -= part.len() as i64;
            self.room.1 -= part.len() as i64;
            rest = after;
        }
        self.flush().await;
    }

    /// Has nothing more to send.
    pub async fn finish(&mut self) {
        self.say(DATA, END, 1, &[]);
        self.flush().await;
    }

    /// The next message of the answer; `None` when there are no more.
    pub async fn message(&mut self) -> Option<Bytes> {
        loop {
            let whole = self.answer.get(1..PREFIX).map(|mut length| PREFIX + length.get_u32() as usize);
            if let Some(whole) = whole.filter(|whole| *whole <= self.answer.len()) {
                self.make_room(whole as u32);
                return Some(self.answer.split_to(whole).split_off(PREFIX).freeze());
            }
            if self.ended {
                return None;
            }
            self.flush().await;
            self.hear().await;
        }
    }

    /// Waits for `due`, and meanwhile answers what the server says. Messages stay where they are, and take up room.
    pub async fn until(&mut self, due: impl Future<Output = ()>) {
        tokio::pin!(due);
        loop {
            tokio::select! {
                biased;
                () = &mut due => return,
                () = self.hear() => {}
            }
            self.flush().await;
        }
    }

    /// Reads what has come, and takes whole frames. A read that is given up loses nothing.
    async fn hear(&mut self) {
        let read = self.stream.read_buf(&mut self.heard).await.expect("a connection that lasts");
        assert!(read > 0 && !self.ended, "the call is over");
        while let Some(head) = self.heard.first_chunk::<HEAD>() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags, stream) = (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            if self.heard.len() < HEAD + length {
                break;
            }
            let frame = self.heard.split_to(HEAD + length).split_off(HEAD);
            self.take(kind, flags, stream, &frame);
        }
        self.heard.reserve(16 << 10);
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        match kind {
            DATA => self.answer.extend_from_slice(payload),
            SETTINGS if flags & END == 0 => {
                for setting in payload.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        let first = i64::from((&setting[2..]).get_u32());
                        self.room.1 += first - self.room.2;
                        self.room.2 = first;
                    }
                }
                self.say(SETTINGS, END, 0, &[]);
            }
            PING if flags & END == 0 => self.say(PING, END, 0, payload),
            WINDOW_UPDATE => {
                let more = i64::from((&payload[..4]).get_u32());
                *(if stream == 0 { &mut self.room.0 } else { &mut self.room.1 }) += more;
            }
            _ => {}
        }
        let over = matches!(kind, DATA | HEADERS) && flags & END != 0;
        self.ended |= over || matches!(kind, RST_STREAM | GOAWAY);
    }

    /// Tells the server of room when half of it is used up.
    fn make_room(&mut self, taken: u32) {
        self.taken += taken;
        if self.taken >= self.window / 2 {
            let more = std::mem::take(&mut self.taken).to_be_bytes();
            self.say(WINDOW_UPDATE, 0, 0, &more);
            self.say(WINDOW_UPDATE, 0, 1, &more);
        }
    }

    fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.said.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.said.extend_from_slice(&[kind, flags]);
        self.said.extend_from_slice(&stream.to_be_bytes());
        self.said.extend_from_slice(payload);
    }

    async fn flush(&mut self) {
        if !self.said.is_empty() {
            self.stream.write_all(&self.said).await.expect("a connection that lasts");
            self.said.clear();
        }
    }
}

/// The fields of a call, each written out: RFC 7541, numbers of its static table.
fn fields(address: &str, path: &str) -> Vec<u8> {
    // :method POST and :scheme http.
    let mut block = vec![0x83, 0x86];
    // :path, :authority, content-type, which takes two bytes, and te.
    for (name, value) in [(&[4][..], path), (&[1], address), (&[15, 16], "application/grpc"), (b"\0\x02te", "trailers")]
    {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).ok().filter(|length| *length < 127).expect("a short value"));
        block.extend_from_slice(value.as_bytes());
    }
    block
}
