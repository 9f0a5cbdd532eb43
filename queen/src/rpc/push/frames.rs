//! The messages of a request where they lie: one that came whole is not copied, and nothing is kept for the next one. There
//! are as many such readers as hives.

use crate::rpc::invalid;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use std::time::Duration;
use tonic::body::Body;
use tonic::{Code, Status};

/// What the sender of a message that is too large is told to wait: it may have a smaller one then.
const RETRY: Duration = Duration::from_secs(5);
/// gRPC's head: whether it is compressed, then its length in four bytes.
const HEAD: usize = 5;

/// A reader.
#[derive(Debug)]
pub struct Frames {
    body: Body,
    limit: usize,
    /// What has come and has not been read.
    held: Bytes,
    /// What has come of a message that is not whole.
    part: BytesMut,
}

impl Frames {
    /// Of messages of at most `limit` bytes.
    pub fn new(body: Body, limit: usize) -> Self {
        Self { body, limit, held: Bytes::new(), part: BytesMut::new() }
    }

    /// The next message; `None` at the end, in order or not. May be dropped and called again.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when it is too large: it cannot be skipped over. INTERNAL when it is none.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(length) = self.length(&self.held)?.filter(|length| self.held.len() >= HEAD + length) {
                self.held.advance(HEAD);
                return Ok(Some(self.held.split_to(length)));
            }
            // What is not whole has to wait: not where it was read, which others need.
            self.part.extend_from_slice(&std::mem::take(&mut self.held));
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.add(data)?,
                    // Trailers; what they say is of no use here.
                    Err(_) => return self.end(),
                },
                // Whoever gives a call up ends it.
                Some(Err(status)) if status.code() == Code::Cancelled => return Ok(None),
                Some(Err(status)) => return Err(status),
                None => return self.end(),
            }
        }
    }

    fn add(&mut self, data: Bytes) -> Result<(), Status> {
        if self.part.is_empty() {
            self.held = data;
            return Ok(());
        }
        self.part.extend_from_slice(&data);
        // Room comes with what arrives: how long it will be is only said as yet.
        if self.length(&self.part)?.is_some_and(|length| self.part.len() >= HEAD + length) {
            self.held = std::mem::take(&mut self.part).freeze();
        }
        Ok(())
    }

    /// How long the message is that begins here, if its head is there.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [compressed, length @ ..] = *head;
        if compressed != 0 {
            return Err(Status::internal("a message is compressed, and no compression was agreed upon"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.limit {
            let limit = self.limit;
            let sentence = format!("a message of {length} bytes is not read: the limit is {limit}");
            return Err(invalid::exhausted(sentence, RETRY));
        }
        Ok(Some(length))
    }

    fn end(&self) -> Result<Option<Bytes>, Status> {
        if self.held.is_empty() && self.part.is_empty() {
            return Ok(None);
        }
        Err(Status::internal("the stream ended within a message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::StreamBody;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn reader(pieces: Vec<Result<Bytes, Status>>) -> Frames {
        let frames = pieces.into_iter().map(|piece| piece.map(Frame::data));
        Frames::new(Body::new(StreamBody::new(tokio_stream::iter(frames))), 100)
    }

    async fn all(pieces: Vec<Result<Bytes, Status>>) -> (Vec<Bytes>, Option<Status>) {
        let (mut frames, mut read) = (reader(pieces), Vec::new());
        loop {
            match frames.next().await {
                Ok(Some(message)) => read.push(message),
                Ok(None) => return (read, None),
                Err(status) => return (read, Some(status)),
            }
        }
    }

    #[tokio::test]
    async fn however_it_is_cut_into_pieces_the_messages_are_the_same() {
        let sent: [&[u8]; 4] = [b"one", b"", &[7; 100], b"four"];
        let bytes: Vec<u8> = sent.iter().flat_map(|message| framed(message)).collect();
        for size in 1..=bytes.len() {
            let pieces = bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            let (read, status) = all(pieces).await;
            assert!(status.is_none(), "{size}: {status:?}");
            assert_eq!(read, sent, "{size}");
        }
    }

    #[tokio::test]
    async fn one_that_came_whole_is_not_copied() {
        let sent = Bytes::from(framed(b"whole"));
        let (read, _) = all(vec![Ok(sent.clone())]).await;
        assert_eq!(read[0].as_ptr(), sent[HEAD..].as_ptr());
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let too_large = [&[0][..], &101_u32.to_be_bytes()].concat();
        let compressed = [&[1][..], &1_u32.to_be_bytes(), &[0]].concat();
        let half = framed(b"half")[..7].to_vec();
        for (bytes, code) in
            [(too_large, Code::ResourceExhausted), (compressed, Code::Internal), (half, Code::Internal)]
        {
            for pieces in [vec![bytes.clone()], bytes.iter().map(|byte| vec![*byte]).collect()] {
                let before = Ok(Bytes::from(framed(b"good")));
                let pieces = pieces.into_iter().map(|piece| Ok(Bytes::from(piece)));
                let (read, status) = all(std::iter::once(before).chain(pieces).collect()).await;
                assert_eq!((read.len(), status.unwrap().code()), (1, code));
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_was_given_up_ends_and_one_that_broke_says_so() {
        for (status, told) in [(Status::cancelled(""), None), (Status::unavailable(""), Some(Code::Unavailable))] {
            let (read, ended) = all(vec![Ok(Bytes::from(framed(b"good"))), Err(status)]).await;
            assert_eq!((read.len(), ended.map(|status| status.code())), (1, told));
        }
    }
}
