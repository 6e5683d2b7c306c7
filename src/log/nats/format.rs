//! The constants and names of the stored format, version 1. `docs/log-format.md` is its
//! specification, `tests/golden/log-format.json` its vectors: what is here must not change.

use crate::{
    log::{BucketName, StreamName},
    model::ChannelKey,
};

/// The version of the layout: subjects, hash, shard key, registry.
pub(super) const FORMAT: u32 = 1;
/// The name of [`shard_of`]'s hash, as the registry records it.
pub(super) const HASH: &str = "fnv1a-64";
/// The prefix whose subject roots are the bare letters.
const DEFAULT_PREFIX: &str = "slip";

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The shard of a channel in a class of `shards` streams: FNV-1a (64 bits) over the app and the
/// channel's name, each behind its length in bytes (u32, little endian), modulo `shards`.
pub(super) fn shard_of(key: &ChannelKey, shards: u16) -> u16 {
    let hash = [key.app.as_str(), key.name.as_str()]
        .iter()
        .fold(FNV_OFFSET, |hash, part| {
            // An app id has at most 32 bytes and a channel name at most 255.
            let length = part.len() as u32;
            fnv1a(fnv1a(hash, &length.to_le_bytes()), part.as_bytes())
        });
    // The remainder is below `shards`, so it fits.
    (hash % u64::from(shards.max(1))) as u16
}

fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
    })
}

/// The names a deployment uses inside its NATS account. They follow from its prefix alone, and
/// those of two prefixes never overlap.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    /// The first token of stored subjects.
    pub(super) history: String,
    /// The first token of live copies.
    pub(super) live: String,
    /// The first token of ephemeral subjects.
    pub(super) ephemeral: String,
    /// The first token of the subjects of the deployment's own streams.
    work: String,
}

impl Names {
    /// The names of the deployment `prefix`: 1 to 32 of `A-Z a-z 0-9 - _`, else `None`.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !matches!(prefix.len(), 1..=32) || !prefix.bytes().all(plain) {
            return None;
        }
        let root = |letter: char| {
            if prefix == DEFAULT_PREFIX {
                letter.to_string()
            } else {
                format!("{letter}-{prefix}")
            }
        };
        Some(Self {
            prefix: prefix.to_owned(),
            history: root('h'),
            live: root('l'),
            ephemeral: root('e'),
            work: root('w'),
        })
    }

    /// The stream of a shard.
    pub(super) fn stream(&self, class: &str, shard: u16) -> String {
        format!("{}_{class}_{shard}", self.prefix)
    }

    /// The registry's KV bucket.
    pub(super) fn bucket(&self) -> &str {
        &self.prefix
    }

    /// One of the buckets that nodes share. A registry of a prefix that is called like it is defined
    /// otherwise, so the start refuses it.
    pub(super) fn shared_bucket(&self, bucket: BucketName) -> String {
        format!("{}_{}", self.prefix, bucket.as_str())
    }

    /// One of the deployment's own streams. No shard's: those end with a number.
    pub(super) fn work_stream(&self, stream: StreamName) -> String {
        format!("{}_{}", self.prefix, stream.as_str())
    }

    /// What the subjects of one of the deployment's own streams begin with, without the dot.
    pub(super) fn work_root(&self, stream: StreamName) -> String {
        join(&self.work, stream.as_str())
    }

    /// The subject of messages between nodes on `topic` (a plain token).
    pub(super) fn node(&self, topic: &str) -> String {
        format!("n.{}.{topic}", self.prefix)
    }
}

/// `<root>.<address>` in one allocation.
pub(super) fn join(root: &str, address: &str) -> String {
    let mut subject = String::with_capacity(root.len() + 1 + address.len());
    subject.push_str(root);
    subject.push('.');
    subject.push_str(address);
    subject
}

#[cfg(test)]
mod tests;
