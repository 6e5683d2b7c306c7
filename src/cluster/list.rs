//! All nodes of a deployment, for an operator who looks from outside.

use std::{fmt::Write, future::poll_fn, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::node::NodeInfo;
use crate::log::{BucketName, Change, Log};

/// The nodes that hold a lease, by name and id, or `None` if NATS does not tell them within `patience`. A
/// node that was killed is among them until its lease is ended by another.
pub async fn list(log: Arc<dyn Log>, patience: Duration) -> Option<Vec<NodeInfo>> {
    let mut changes = log.bucket(BucketName::Nodes).watch();
    let listing = timeout(patience, async {
        let mut nodes = Vec::new();
        while let Some(change) = poll_fn(|cx| changes.poll_next(cx)).await {
            match change {
                Change::Begin => nodes.clear(),
                Change::Entry { entry, .. } => {
                    nodes.extend(
                        entry
                            .value
                            .and_then(|value| serde_json::from_slice::<NodeInfo>(&value).ok()),
                    );
                }
                Change::Current => return Some(nodes),
            }
        }
        None
    });
    let mut nodes = listing.await.ok()??;
    nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Some(nodes)
}

/// A table for people.
pub fn table(nodes: &[NodeInfo], now_ms: i64) -> String {
    let head = [
        "ID", "NAME", "STATE", "INC", "VERSION", "ADDRESS", "UP", "RENEWED", "CONNS", "SUBS", "TAILS",
    ];
    let ago = |ms: i64| format!("{}s", now_ms.saturating_sub(ms).max(0) / 1_000);
    let rows = nodes.iter().map(|node| {
        [
            node.id.to_string(),
            node.name.clone(),
            node.state.as_str().to_owned(),
            node.incarnation.to_string(),
            node.version.clone(),
            node.address.clone(),
            ago(node.started_ms),
            ago(node.renewed_ms),
            node.load.connections.to_string(),
            node.load.subscriptions.to_string(),
            node.load.tails.to_string(),
        ]
    });
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 11];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(&row) {
            // Writing to a String does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Load, NodeState},
        model::{Incarnation, NodeId},
    };

    #[test]
    fn a_table_has_a_line_for_each_node_in_columns() {
        let node = |id, name: &str| NodeInfo {
            id: NodeId::new(id),
            incarnation: Incarnation::FIRST,
            name: name.to_owned(),
            address: "127.0.0.1:8000".to_owned(),
            version: "0.1.0".to_owned(),
            state: NodeState::Ready,
            started_ms: 1_000,
            renewed_ms: 60_500,
            load: Load::default(),
        };
        let table = table(&[node(1, "a"), node(2, "longer")], 61_000);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines[0],
            "ID                NAME    STATE  INC  VERSION  ADDRESS         UP   RENEWED  CONNS  SUBS  TAILS"
        );
        assert_eq!(
            lines[1],
            "0000000000000001  a       ready  1    0.1.0    127.0.0.1:8000  60s  0s       0      0     0"
        );
        assert_eq!(lines.len(), 3);
    }
}
