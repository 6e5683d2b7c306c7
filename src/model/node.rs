use std::fmt;

use serde::{Deserialize, Serialize};

/// A node: one process, named anew each time it starts. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(u64);

/// How often a node has had to begin anew, since its lease had ended: what it said before counts no
/// more. Begins at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(u32);

/// Why a text is not a node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a node id is 16 hexadecimal digits")]
pub struct InvalidNodeId;

impl NodeId {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Reads an id as [`fmt::Display`] writes it.
    ///
    /// # Errors
    ///
    /// [`InvalidNodeId`].
    pub fn parse(text: &str) -> Result<Self, InvalidNodeId> {
        let plain = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(plain) {
            return Err(InvalidNodeId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidNodeId)
    }
}

impl Incarnation {
    /// The first one of a node.
    pub const FIRST: Self = Self(1);

    /// The one with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidNodeId;
    fn try_from(text: String) -> Result<Self, InvalidNodeId> {
        Self::parse(&text)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_reads_as_it_is_written_and_nothing_else_does() {
        for number in [0, 1, 0xdead_beef, u64::MAX] {
            let id = NodeId::new(number);
            assert_eq!(NodeId::parse(&id.to_string()), Ok(id));
        }
        for bad in [
            "",
            "1",
            "000000000000000G",
            "00000000000000AB",
            "+000000000000001",
            "00000000000000001",
        ] {
            assert_eq!(NodeId::parse(bad), Err(InvalidNodeId), "{bad}");
        }
    }
}
