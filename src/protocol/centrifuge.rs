//! The Centrifuge client protocol v2 in JSON: `docs/protocol.md`.
