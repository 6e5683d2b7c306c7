//! Joining a tail, and feeding those who are behind (L8, L9).

use std::sync::Arc;

use crate::{
    channel::{
        cursor::{Batch, Cursor, CursorKey, Outlet},
        entry::{Entry, Message},
        mailbox::Offer,
        recovery::Target,
    },
    model::Offset,
};

use super::{Effects, Tail, cursor, publications};

/// What a subscriber that resumes from a position gets.
#[derive(Debug)]
pub enum Join {
    /// It has joined.
    Joined(Joined),
    /// Ask the log for the channel's last message, hand it to [`Tail::on_check`], join again.
    Look,
    /// Nothing is stored after the position. If a floor *learnt from now on* holds for it, call
    /// [`Tail::join_read`] with no messages and `covered_to`.
    Floor {
        /// What a floor that holds proves.
        covered_to: Offset,
    },
    /// Read from the position; then call [`Tail::join_read`].
    Read {
        /// What is known to exist.
        target: Target,
    },
    /// The position is above this tail's watermark. If the shard's leader has (ever had) that
    /// sequence in this epoch, call [`Tail::join_ahead`].
    Ahead,
}

/// A subscriber that has joined.
#[derive(Debug)]
pub struct Joined {
    /// Its cursor.
    pub key: CursorKey,
    /// The cursor's place: what the reply names (L9).
    pub offset: Offset,
    /// What it missed, as far as one page goes.
    pub entries: Vec<Arc<Entry>>,
    /// There is more: feed it.
    pub behind: bool,
}

/// What became of a step of feeding.
#[derive(Debug, PartialEq, Eq)]
pub enum Feed {
    /// It is live again.
    Live,
    /// Its mailbox is full: come back when it takes so many bytes.
    Full(usize),
    /// Read from its place; then call [`Tail::on_fed`].
    Read {
        /// The cursor's place.
        from: Offset,
        /// What is known to exist.
        target: Target,
    },
    /// It is gone.
    Gone,
}

/// What became of what was read for a cursor.
#[derive(Debug, PartialEq, Eq)]
pub enum Fed {
    /// All of it was taken.
    Taken,
    /// Not all: come back when the mailbox takes so many bytes.
    Full(usize),
    /// The cursor is gone.
    Gone,
}

impl<O: Outlet> Tail<O> {
    /// Joins a subscriber that names no position: its place is the watermark.
    pub fn join_fresh(&mut self, outlet: O) -> Joined {
        let offset = self.whole_to;
        let key = self.cursors.insert(cursor(outlet, offset, true));
        Joined {
            key,
            offset,
            entries: Vec::new(),
            behind: false,
        }
    }

    /// Joins a subscriber at `position` (of this epoch), or tells what is needed first. The outlet
    /// is made only when it joins.
    pub fn join_at(&mut self, position: Offset, outlet: impl FnOnce() -> O) -> Join {
        if position > self.whole_to {
            return Join::Ahead;
        }
        if position >= self.ring.from() {
            return Join::Joined(self.join_ring(position, Vec::new(), outlet()));
        }
        if !self.looked {
            return Join::Look;
        }
        match self.last {
            // The last message is the position itself: what is stored at the position proves that
            // nothing after it was taken away (L8a).
            Some(last) if last == position => {
                Join::Joined(self.join_read(position, &[], self.whole_to, outlet()))
            }
            Some(last) if last > position => Join::Read {
                target: Target {
                    last: Some(last),
                    whole_to: self.whole_to,
                },
            },
            _ => Join::Floor {
                covered_to: self.whole_to,
            },
        }
    }

    /// Joins a subscriber with what was read for it: everything after `position` up to
    /// `covered_to`.
    pub fn join_read(
        &mut self,
        position: Offset,
        messages: &[Message],
        covered_to: Offset,
        outlet: O,
    ) -> Joined {
        let read: Vec<_> = publications(messages).cloned().collect();
        let removed = messages
            .iter()
            .any(|message| matches!(message, Message::Tombstone(_)));
        // What was removed since is for those who were on their way, and never kept (L15).
        if !removed && covered_to >= self.ring.from() && position < self.ring.from() {
            // The next one with this position needs no read.
            self.ring.extend_back(position, &read, self.limits.ring);
            if self.ring.from() <= position {
                return self.join_ring(position, Vec::new(), outlet);
            }
        }
        let mut page = Vec::new();
        if !fill(&mut page, read.iter(), self.limits.page_bytes) {
            return self.join_behind(page, outlet);
        }
        if covered_to >= self.ring.from() {
            return self.join_ring(covered_to, page, outlet);
        }
        let key = self.cursors.insert(cursor(outlet, covered_to, false));
        Joined {
            key,
            offset: covered_to,
            entries: page,
            behind: true,
        }
    }

    /// Joins a subscriber whose position is above this tail's watermark: it gets nothing that it
    /// has already, and nothing is missing, since the tail is whole below.
    pub fn join_ahead(&mut self, position: Offset, outlet: O) -> Joined {
        let key = self.cursors.insert(cursor(outlet, position, true));
        Joined {
            key,
            offset: position,
            entries: Vec::new(),
            behind: false,
        }
    }

    /// From `page` (everything up to `position`, which the ring vouches for) on with the ring.
    fn join_ring(&mut self, position: Offset, mut page: Vec<Arc<Entry>>, outlet: O) -> Joined {
        if !fill(&mut page, self.ring.after(position), self.limits.page_bytes) {
            return self.join_behind(page, outlet);
        }
        let offset = self.whole_to.max(position);
        let key = self.cursors.insert(cursor(outlet, offset, true));
        Joined {
            key,
            offset,
            entries: page,
            behind: false,
        }
    }

    fn join_behind(&mut self, page: Vec<Arc<Entry>>, outlet: O) -> Joined {
        let offset = page.last().map_or(0, |entry| entry.offset);
        let key = self.cursors.insert(cursor(outlet, offset, false));
        Joined {
            key,
            offset,
            entries: page,
            behind: true,
        }
    }

    /// One step for a cursor that is behind: from the ring if it reaches that far back.
    pub fn feed(&mut self, key: CursorKey) -> Feed {
        let Some(cursor) = self.cursors.get_mut(key) else {
            return Feed::Gone;
        };
        if cursor.live {
            return Feed::Live;
        }
        if cursor.delivered < self.ring.from() {
            let target = Target {
                last: self.last,
                whole_to: self.whole_to,
            };
            return Feed::Read {
                from: cursor.delivered,
                target,
            };
        }
        let entries = self.ring.after(cursor.delivered);
        match give(cursor, entries, self.limits.page_bytes, &mut self.effects) {
            Fed::Taken => {
                cursor.delivered = cursor.delivered.max(self.whole_to);
                cursor.live = true;
                Feed::Live
            }
            Fed::Full(bytes) => Feed::Full(bytes),
            Fed::Gone => Feed::Gone,
        }
    }

    /// What was read for a cursor: everything after `from` up to `covered_to`. If not all of it is
    /// taken, it can be handed in again: the cursor gets what it has not had.
    pub fn on_fed(&mut self, key: CursorKey, from: Offset, messages: &[Message], covered_to: Offset) -> Fed {
        let Some(cursor) = self.cursors.get_mut(key) else {
            return Fed::Gone;
        };
        if cursor.live || cursor.delivered < from {
            return Fed::Taken;
        }
        let had = messages.partition_point(|message| message.offset() <= cursor.delivered);
        let fed = give(
            cursor,
            publications(&messages[had..]),
            usize::MAX,
            &mut self.effects,
        );
        if fed == Fed::Taken {
            cursor.delivered = cursor.delivered.max(covered_to);
        }
        fed
    }

    /// What a cursor that is behind will have to read when it has everything up to `offset`; `None`
    /// if the ring reaches that far back.
    pub fn reads_after(&mut self, key: CursorKey, offset: Offset) -> Option<Target> {
        let behind = self.cursors.get_mut(key).is_some_and(|cursor| !cursor.live);
        (behind && offset < self.ring.from()).then_some(Target {
            last: self.last,
            whole_to: self.whole_to,
        })
    }

    /// Where a cursor's publications go.
    pub fn outlet_of(&mut self, key: CursorKey) -> Option<&O> {
        self.cursors.get_mut(key).map(|cursor| &cursor.outlet)
    }

    /// Ends a cursor for which something is missing.
    pub fn end(&mut self, key: CursorKey) {
        if let Some(cursor) = self.cursors.remove(key) {
            self.effects.ended.push(cursor.outlet);
        }
    }

    /// What another node asks for (L8): the publications after `position` and the watermark, if
    /// this tail can vouch for the position. A page of them at most: the second value is then the
    /// last of them.
    pub fn vouch(&self, position: Offset) -> Option<(Vec<Arc<Entry>>, Offset)> {
        if !self.has_begun() || position > self.whole_to {
            return None;
        }
        if position < self.ring.from() {
            // What is stored at the last message itself proves that nothing follows it (L8a).
            return (self.last == Some(position)).then_some((Vec::new(), self.whole_to));
        }
        let mut page: Vec<Arc<Entry>> = Vec::new();
        let complete = fill(&mut page, self.ring.after(position), self.limits.page_bytes);
        let covered_to = if complete {
            self.whole_to
        } else {
            page.last().map_or(position, |last| last.offset)
        };
        Some((page, covered_to))
    }
}

/// Gives a cursor as many of `entries` as its outlet has room for, `limit` bytes at most; always one,
/// which an empty outlet takes whatever its size.
fn give<'a, O: Outlet>(
    cursor: &mut Cursor<O>,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
    limit: usize,
    effects: &mut Effects<O>,
) -> Fed {
    let mut space = cursor.outlet.space().min(limit);
    let mut batch = Batch::default();
    let mut first = 0;
    let mut left = None;
    for entry in entries {
        let size = entry.frame().len();
        if batch.is_empty() {
            first = size;
        } else if size > space {
            left = Some(size);
            break;
        }
        space = space.saturating_sub(size);
        batch.push(entry.clone());
    }
    match batch.offer(&cursor.outlet, &mut cursor.delivered) {
        Offer::Taken => {
            effects.delivered += batch.len() as u64;
            effects.delivered_bytes += batch.bytes() as u64;
        }
        Offer::Full => return Fed::Full(first),
        Offer::Closed => return Fed::Gone,
    }
    left.map_or(Fed::Taken, Fed::Full)
}

/// Fills a page with `entries` up to `limit` bytes, but with at least one; false if some are left.
fn fill<'a>(page: &mut Vec<Arc<Entry>>, entries: impl Iterator<Item = &'a Arc<Entry>>, limit: usize) -> bool {
    let mut bytes: usize = page.iter().map(|entry| entry.frame().len()).sum();
    for entry in entries {
        bytes += entry.frame().len();
        if !page.is_empty() && bytes > limit {
            return false;
        }
        page.push(entry.clone());
    }
    true
}
