//! A channel is a log; a subscriber tails it.
//!
//! Decisions are pure and synchronous: `tail` (what is whole, what is a gap, who gets what), `ring`,
//! `recovery` (what a page proves), `shard` (floor, epoch, which answers count). The drivers around
//! them (`hub`, `interest`, `checks`, `reader`, `gap`, `feeder`, `keeper`, `peers`) move answers of
//! the log into these types and their needs back to the log; they decide nothing.

mod budget;
mod checks;
mod cursor;
mod entry;
mod feeder;
mod gap;
mod gate;
mod history;
mod hub;
mod interest;
mod keeper;
mod linger;
mod listing;
mod mailbox;
mod outlet;
mod peers;
mod planner;
mod publish;
mod reader;
mod recovery;
mod ring;
mod rings;
mod shard;
mod subscribe;
mod sweeper;
mod tail;

pub use budget::Budgets;
pub use entry::Entry;
pub use history::{HistoryError, HistoryPage, HistoryRead};
pub use hub::{Encoder, Hub, Interest, TooManyTails};
pub use keeper::Keeper;
pub use listing::Listing;
pub use mailbox::{Mailbox, MailboxLimits, Notice, Taken, Wire};
pub use outlet::Outlet;
pub use publish::{PublishFailure, Published, may_be_stored};
pub use subscribe::{Resume, SubscribeError, Subscribed, Subscription};
