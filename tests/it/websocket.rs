//! The WebSocket codec against tokio-tungstenite, an independent client, and against raw bytes.

mod codec;
mod corpus;
mod echo;
mod frames;
