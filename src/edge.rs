//! The rim towards clients: sockets, transports and the write path.

mod admission;
mod arrivals;
mod bounds;
mod connection;
pub mod frames;
pub mod gateway;
pub mod handler;
pub mod listener;
mod orders;
pub mod origin;
mod reader;
mod send_queue;
pub mod sockopt;
pub mod upgrade;
pub mod websocket;
mod writer;
