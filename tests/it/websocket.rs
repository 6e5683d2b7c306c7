//! The WebSocket codec against tokio-tungstenite, an independent client, and against raw bytes.

mod codec;
mod corpus;
pub(crate) mod echo;
pub(crate) mod frames;
