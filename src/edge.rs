//! The rim towards clients: sockets, transports and the write path.

pub mod listener;
pub mod origin;
pub mod sockopt;
pub mod upgrade;
pub mod websocket;
