//! Starts queens, hives and workers for tests.
