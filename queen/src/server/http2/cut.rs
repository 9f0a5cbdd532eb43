//! Ends an answer whose reader takes nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Put among the extensions of an answer, it ends that from elsewhere. What a reader is told has to wait for it, and who never
/// reads would keep that for ever. An answer that is being read ends as its body says. Over HTTP/1.1 it does nothing.
///
/// An answer that is blocked looks at it when its connection is at work, which it is within three seconds: whoever says
/// nothing is asked whether he is there.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<AtomicBool>);

impl Cut {
    /// Nothing waits for that reader any more.
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was made.
    pub fn is_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
