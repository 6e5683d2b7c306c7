//! The rim towards clients: sockets, transports and the write path.

pub mod origin;
pub mod websocket;
