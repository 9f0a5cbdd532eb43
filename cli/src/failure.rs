//! How a verb can end other than well: what was tried, on what, why it failed, what to do next, and the exit code.

use std::error::Error;
use std::process::ExitCode;

/// The exit code for a command line that makes no sense.
pub const USAGE: u8 = 2;
/// 128 + SIGPIPE.
const READER_LEFT: u8 = 141;

/// Why a verb did not do all that was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something went wrong: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command line makes no sense: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Nothing fits what was asked for: exit code 3.
    #[error("{0}")]
    Nothing(String),
    /// No queen answers: exit code 4.
    #[error("{0}")]
    Unreachable(String),
    /// Some targets were done, others not; each has been told already: exit code 5.
    #[error("{0}")]
    Partly(String),
    /// The reader of our output has left: nothing to say, the code that a shell shows for SIGPIPE.
    #[error("")]
    ReaderLeft,
}

impl Failure {
    /// `what` was tried and `why` it failed, down to the first cause.
    pub fn failed(what: &str, why: &dyn Error) -> Self {
        Self::Failed(format!("{what}: {}", causes(why)))
    }

    /// The exit code that scripts can rely on.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => USAGE,
            Self::Nothing(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Partly(_) => 5,
            Self::ReaderLeft => READER_LEFT,
        })
    }
}

/// An error with all its sources on one line, without saying anything twice.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// The last of an error's sources: what the system itself said.
pub fn first_cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}
