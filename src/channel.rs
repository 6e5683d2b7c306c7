//! A channel is a log; a subscriber tails it.
//!
//! Decisions are pure and synchronous: [`tail`] (what is whole, what is a gap, who gets what),
//! [`ring`], [`recovery`] (what a page proves), [`shard`] (floor, epoch, checks). The drivers around
//! them ([`hub`], [`interest`], [`reader`], [`keeper`]) move answers of the log into these types and
//! their needs back to the log; they decide nothing.

pub mod cursor;
pub mod entry;
pub mod mailbox;
pub mod recovery;
pub mod ring;
pub mod shard;
pub mod tail;
