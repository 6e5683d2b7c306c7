//! The log on NATS JetStream: the only user of async-nats.

mod envelope;
mod format;
mod headers;
mod stamp;
mod subject;
