//! The integration tests: one binary, a real nats-server per test.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod log_nats;
mod support;
