//! The answer to a stream of frames: begins at once, ends with how much of it was taken. What a stream does, it does in here: of
//! all that stands around a call nothing is left that each frame would have to pass.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use prost::Message;
use proto::PushTelemetryResponse;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

type Taking = Pin<Box<dyn Future<Output = Result<PushTelemetryResponse, Status>> + Send>>;

/// The body.
pub struct Books(Stage);

enum Stage {
    Taking(Taking),
    Summed,
    Over,
}

impl Books {
    /// Of a stream that is taken so.
    pub fn of(taking: impl Future<Output = Result<PushTelemetryResponse, Status>> + Send + 'static) -> Self {
        Self(Stage::Taking(Box::pin(taking)))
    }

    fn end(&mut self, status: &Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.0 = Stage::Over;
        let mut trailers = HeaderMap::new();
        Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
    }
}

impl http_body::Body for Books {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match &mut self.0 {
            Stage::Taking(taking) => match ready!(taking.as_mut().poll(cx)) {
                Ok(books) => {
                    self.0 = Stage::Summed;
                    Some(Ok(Frame::data(framed(&books))))
                }
                Err(status) => self.end(&status),
            },
            Stage::Summed => self.end(&Status::ok("")),
            Stage::Over => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Stage::Over)
    }
}

fn framed(books: &PushTelemetryResponse) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(books.encoded_len()).unwrap_or(u32::MAX));
    books.encode_raw(&mut bytes);
    bytes.freeze()
}
