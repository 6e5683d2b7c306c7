//! Faults that must be survived: at every subscriber no lost acknowledged publication, no duplicate,
//! no reorder; `recovered: true` only when it is true; no hang. Two edges, real nats-servers.

mod bad_input;
mod chaos;
mod cluster;
mod history;
mod hostile;
mod network;
mod nodes;
mod publishers;
mod readers;
