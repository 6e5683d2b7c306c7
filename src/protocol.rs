//! stub
/// stub
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectCode {
    /// slow
    Slow,
}
