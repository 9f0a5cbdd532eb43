//! What connections read into. One is needed only while something is read: as many as there are threads at work serve ten
//! thousand connections, and stay in the processor's caches.

use bytes::BytesMut;
use std::sync::{Mutex, PoisonError};

/// What is read at a time, in bytes: a whole frame, whatever of it has come before.
pub const READ: usize = 32 * 1024;
/// So many are kept.
const KEPT: usize = 16;

/// Those that nobody needs at present.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<BytesMut>>);

impl Buffers {
    /// One that is empty and has room for [`READ`] bytes.
    pub fn take(&self) -> BytesMut {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = kept.unwrap_or_default();
        // Makes a new one where somebody still holds a piece of what was read into it before.
        buffer.reserve(READ);
        buffer
    }

    /// One is not needed any more.
    pub fn give(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_used_again_unless_a_piece_of_it_is_held() {
        let buffers = Buffers::default();
        let mut first = buffers.take();
        let place = first.as_ptr();
        first.extend_from_slice(&[1; READ]);
        drop(first.split_to(READ - 1).freeze());
        buffers.give(first);
        let mut again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        again.extend_from_slice(&[2; 100]);
        let held = again.split_to(10).freeze();
        buffers.give(again);
        let mut other = buffers.take();
        other.extend_from_slice(&[3; READ]);
        assert_eq!(held[..], [2; 10]);
    }
}
