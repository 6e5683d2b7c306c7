//! The places of a tail's subscriptions.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::Offset;

use super::{
    entry::Entry,
    mailbox::{Offer, Pace},
};

/// Where a cursor's publications go: a connection's mailbox.
pub trait Outlet {
    /// Offers frames that the log can give again: all or none are taken.
    fn offer(&self, frames: &[Bytes], bytes: usize, pace: Pace) -> Offer;
    /// How many bytes it would take now.
    fn space(&self) -> usize;
}

/// Names a cursor of one tail. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CursorKey {
    index: u32,
    generation: u32,
}

/// A subscription's place on the tail.
#[derive(Debug)]
pub struct Cursor<O> {
    /// Where its publications go.
    pub outlet: O,
    /// Everything up to here has been delivered, or was known to the client: nothing at or below
    /// it is delivered again. May be above the tail's `whole_to` (the client was on a node that was
    /// ahead).
    pub delivered: Offset,
    /// It gets what arrives; otherwise it is behind and is fed.
    pub live: bool,
}

/// The cursors of a tail: stable keys, dense enough to walk.
#[derive(Debug)]
pub struct Cursors<O> {
    slots: Vec<Slot<O>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Slot<O> {
    generation: u32,
    cursor: Option<Cursor<O>>,
}

impl<O> Default for Cursors<O> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<O> Cursors<O> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.len
    }

    /// Adds a cursor.
    pub fn insert(&mut self, cursor: Cursor<O>) -> CursorKey {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.generation = slot.generation.wrapping_add(1);
            slot.cursor = Some(cursor);
            return CursorKey {
                index,
                generation: slot.generation,
            };
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if self.slots.is_empty() {
            // Many channels have one subscription only.
            self.slots.reserve_exact(1);
        }
        self.slots.push(Slot {
            generation: 0,
            cursor: Some(cursor),
        });
        CursorKey { index, generation: 0 }
    }

    /// The cursor, if it has not been removed.
    pub fn get_mut(&mut self, key: CursorKey) -> Option<&mut Cursor<O>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation {
            slot.cursor.as_mut()
        } else {
            None
        }
    }

    /// Removes a cursor.
    pub fn remove(&mut self, key: CursorKey) -> Option<Cursor<O>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let cursor = slot.cursor.take()?;
        self.len -= 1;
        self.free.push(key.index);
        if self.len == 0 {
            // Keys must stay unique, so the generations are kept; their memory is not worth more.
            self.free.shrink_to_fit();
        }
        Some(cursor)
    }

    /// Removes all cursors.
    pub fn take_all(&mut self) -> Vec<(CursorKey, Cursor<O>)> {
        let keys: Vec<_> = self.keys().collect();
        keys.into_iter()
            .filter_map(|key| Some((key, self.remove(key)?)))
            .collect()
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = CursorKey> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.cursor.is_some())
            .map(|(index, slot)| CursorKey {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: slot.generation,
            })
    }

    /// Walks all cursors.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CursorKey, &mut Cursor<O>)> + '_ {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let key = CursorKey {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: slot.generation,
            };
            Some((key, slot.cursor.as_mut()?))
        })
    }
}

/// Publications on their way to many outlets: the frames are gathered once.
#[derive(Debug)]
pub struct Batch {
    pace: Pace,
    entries: Vec<Arc<Entry>>,
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new(Pace::Queued)
    }
}

impl Batch {
    /// An empty batch.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            entries: Vec::new(),
            frames: Vec::new(),
            bytes: 0,
        }
    }

    /// How it is handed over.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Adds the next publication.
    pub fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.frame().len();
        self.frames.push(entry.frame().clone());
        self.entries.push(entry);
    }

    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many publications there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Offers everything, whatever its offset: on ephemeral channels there are none.
    pub fn offer_all<O: Outlet>(&self, outlet: &O) -> Offer {
        if self.is_empty() {
            Offer::Taken
        } else {
            outlet.offer(&self.frames, self.bytes, self.pace)
        }
    }

    /// The offset of its first publication.
    pub fn first(&self) -> Option<Offset> {
        self.entries.first().map(|entry| entry.offset)
    }

    /// How many publications are above `offset`, and the bytes of their frames.
    pub fn after(&self, offset: Offset) -> (usize, usize) {
        let start = self.entries.partition_point(|entry| entry.offset <= offset);
        let bytes = self.frames[start..].iter().map(Bytes::len).sum();
        (self.frames.len() - start, bytes)
    }

    /// The bytes of its frames.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Offers what is above `delivered`; on success `delivered` moves to the last one.
    pub fn offer<O: Outlet>(&self, outlet: &O, delivered: &mut Offset) -> Offer {
        let Some(last) = self.entries.last() else {
            return Offer::Taken;
        };
        let start = if self.entries[0].offset > *delivered {
            0
        } else {
            self.entries.partition_point(|entry| entry.offset <= *delivered)
        };
        if start == self.entries.len() {
            return Offer::Taken;
        }
        let bytes = if start == 0 {
            self.bytes
        } else {
            self.frames[start..].iter().map(Bytes::len).sum()
        };
        let offer = outlet.offer(&self.frames[start..], bytes, self.pace);
        if offer == Offer::Taken {
            *delivered = last.offset;
        }
        offer
    }
}
