//! What people can do about an error of the machine, as the end of a sentence.

use std::io;

/// Whether a disk has no more room for the one who writes.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// "; make room on its disk". Empty where there is nothing to advise.
pub fn mend(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        _ if is_full(error) => "; make room on its disk",
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit on open files (LimitNOFILE= of the hive's unit)",
        _ => "",
    }
}
