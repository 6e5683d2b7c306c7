//! Who is on a channel, on two and three nodes.

mod bounds;
mod failures;
mod joins;
mod queries;
mod setting;
