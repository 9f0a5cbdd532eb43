//! The real binary once more, so that the tests of this crate find it beside them.

fn main() -> std::process::ExitCode {
    cli::main()
}
