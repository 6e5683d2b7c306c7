//! What a read of the log proves (L8, L10): the decision whether a page is everything after a
//! position, made apart from who asks and how the answer came.

use std::{sync::Arc, time::Duration};

use crate::model::Offset;

use super::entry::{Entry, Message, Placed};

/// What is known to exist of a channel when a read is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// A message known to be stored: a page that ends below it is not the end.
    pub last: Option<Offset>,
    /// Having everything up to `last` is having everything up to here.
    pub whole_to: Offset,
}

/// Why a read does not prove that nothing is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Older messages may have expired.
    #[error("the position is below what is retained")]
    Expired,
    /// The class keeps so few messages per channel that some may be gone.
    #[error("the class's limit per channel may have passed the position")]
    Trimmed,
    /// The history was removed after the position.
    #[error("the history was removed")]
    Removed,
    /// A message of a newer program stands behind the position.
    #[error("a message of a newer version follows")]
    Opaque,
}

/// A page as it was read from `position` inclusive, put in the channel's terms.
#[derive(Clone, Debug)]
pub struct Found<P = Arc<Entry>> {
    /// The messages, ascending, from `position` on.
    pub messages: Vec<Message<P>>,
    /// How many more the replica has behind them.
    pub pending: u64,
}

/// What a page means, before it is known what is still retained.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged<P = Arc<Entry>> {
    /// The messages after the position.
    pub messages: Vec<Message<P>>,
    /// The proof holds only if a floor *learnt after the read* is at most position + 1 (L8b);
    /// otherwise the read itself proves it (L8a).
    pub needs_floor: bool,
    /// The replica has nothing behind these.
    pub ends: bool,
}

/// Judges a page read from `position` inclusive. `limit` is the class's messages per channel.
pub fn judge<P: Placed>(
    position: Offset,
    found: Found<P>,
    limit: Option<u64>,
) -> Result<Judged<P>, Unproven> {
    let Found {
        mut messages,
        pending,
    } = found;
    let anchored = messages.first().is_some_and(|first| first.offset() == position);
    if anchored {
        messages.remove(0);
    }
    let mut ends = pending == 0;
    if let Some(limit) = limit {
        // Messages behind the position push each other out oldest first: as long as fewer than the
        // limit follow it, none of them can have been pushed out.
        if messages.len() as u64 + pending >= limit {
            return Err(Unproven::Trimmed);
        }
    }
    if !anchored
        && messages
            .iter()
            .any(|message| matches!(message, Message::Tombstone(_)))
    {
        return Err(Unproven::Removed);
    }
    if let Some(at) = messages
        .iter()
        .position(|message| matches!(message, Message::Opaque(_)))
    {
        if at == 0 {
            return Err(Unproven::Opaque);
        }
        messages.truncate(at);
        ends = false;
    }
    Ok(Judged {
        messages,
        needs_floor: !anchored,
        ends,
    })
}

impl<P: Placed> Judged<P> {
    /// Something may have gone from between these messages while the replica put the page together:
    /// then the message at the position proves nothing any more.
    ///
    /// # Errors
    /// If a floor cannot prove it either: what the class's `limit` per channel or a removal of the
    /// history takes is above the floor.
    pub fn torn(&mut self, limit: Option<u64>) -> Result<(), Unproven> {
        if limit.is_some() {
            return Err(Unproven::Trimmed);
        }
        if self
            .messages
            .iter()
            .any(|message| matches!(message, Message::Tombstone(_)))
        {
            return Err(Unproven::Removed);
        }
        self.needs_floor = true;
        Ok(())
    }
}

/// Whether everything after `position` is still retained, by a floor learnt after the read (L8b).
pub fn floor_holds(position: Offset, floor: Offset) -> bool {
    floor <= position.saturating_add(1)
}

/// Up to where a judged page is everything, or `None` if it ends below what is known to exist and
/// must be read again.
pub fn covered_to<P: Placed>(position: Offset, judged: &Judged<P>, target: Target) -> Option<Offset> {
    let last = judged.messages.last().map_or(position, Message::offset);
    if !judged.ends {
        return Some(last);
    }
    match target.last {
        Some(known) if known > last => None,
        _ => Some(last.max(target.whole_to)),
    }
}

/// The time from which on history is given (ms since 1970), where an app may keep it for less than its class does:
/// what is older is as if it had gone.
pub fn given_since(now_ms: i64, max_age: Duration, most: Option<Duration>) -> Option<i64> {
    let most = most.filter(|most| *most < max_age)?;
    Some(now_ms.saturating_sub(i64::try_from(most.as_millis()).unwrap_or(i64::MAX)))
}

/// Whether any of these publications is not given.
pub fn is_withheld<P: Placed>(messages: &[Message<P>], given_since_ms: Option<i64>) -> bool {
    let Some(since_ms) = given_since_ms else {
        return false;
    };
    messages
        .iter()
        .any(|message| matches!(message, Message::Publication(it) if it.time_ms() < since_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::entry::test_entry;

    fn publication(offset: Offset) -> Message {
        Message::Publication(test_entry(offset))
    }

    fn found(messages: Vec<Message>, pending: u64) -> Found {
        Found { messages, pending }
    }

    #[test]
    fn what_an_app_may_not_keep_is_as_if_it_had_gone() {
        let second = Duration::from_secs;
        for (most, since) in [
            (None, None),
            (Some(second(60)), None),
            (Some(second(61)), None),
            (Some(second(59)), Some(41_000)),
            (Some(second(0)), Some(100_000)),
            (Some(Duration::MAX), None),
        ] {
            assert_eq!(given_since(100_000, second(60), most), since, "{most:?}");
        }
        let at = |time_ms| Message::Publication(Entry::new(7, time_ms, bytes::Bytes::new(), 0..0));
        let page = [at(5), Message::Tombstone(8), at(9)];
        for (since, withheld) in [(None, false), (Some(5), false), (Some(6), true), (Some(99), true)] {
            assert_eq!(is_withheld(&page, since), withheld, "{since:?}");
        }
        assert!(!is_withheld(&[Message::<Arc<Entry>>::Tombstone(8)], Some(99)));
    }

    #[test]
    fn l8a_a_page_that_starts_at_the_position_proves_itself() {
        let judged = judge(5, found(vec![publication(5), publication(9)], 0), None).unwrap();
        assert_eq!(judged.messages, [publication(9)]);
        assert!(!judged.needs_floor && judged.ends);
    }

    #[test]
    fn l8b_any_other_page_needs_the_floor() {
        let judged = judge(5, found(vec![publication(9)], 0), None).unwrap();
        assert!(judged.needs_floor);
        assert!(floor_holds(5, 6) && floor_holds(5, 1) && !floor_holds(5, 7));
    }

    #[test]
    fn l8_a_limit_per_channel_bounds_what_may_follow() {
        let page = || found(vec![publication(5), publication(9), publication(10)], 1);
        assert!(judge(5, page(), Some(4)).is_ok());
        assert_eq!(judge(5, page(), Some(3)), Err(Unproven::Trimmed));
    }

    #[test]
    fn l8a_a_page_that_may_be_torn_needs_the_floor_or_proves_nothing() {
        let page = |second| judge(5, found(vec![publication(5), second], 0), Some(9)).unwrap();
        let mut torn = page(publication(9));
        assert_eq!(torn.torn(None), Ok(()));
        assert!(torn.needs_floor);
        assert_eq!(page(publication(9)).torn(Some(9)), Err(Unproven::Trimmed));
        assert_eq!(page(Message::Tombstone(9)).torn(None), Err(Unproven::Removed));
    }

    #[test]
    fn l15_a_tombstone_counts_unless_the_read_began_before_it() {
        let page = |first| found(vec![first, Message::Tombstone(7), publication(9)], 0);
        assert!(judge(5, page(publication(5)), None).is_ok());
        assert_eq!(judge(5, page(publication(6)), None), Err(Unproven::Removed));
    }

    #[test]
    fn l3_a_newer_version_ends_what_can_be_read() {
        let page = found(
            vec![publication(5), publication(6), Message::Opaque(7), publication(8)],
            0,
        );
        let judged = judge(5, page, None).unwrap();
        assert_eq!((judged.messages, judged.ends), (vec![publication(6)], false));
        let page = found(vec![publication(6), Message::Opaque(7)], 0);
        assert_eq!(judge(6, page, None), Err(Unproven::Opaque));
    }

    #[test]
    fn l10_a_page_below_what_exists_is_not_the_end() {
        let target = Target {
            last: Some(9),
            whole_to: 20,
        };
        let end =
            |messages, pending| covered_to(5, &judge(5, found(messages, pending), None).unwrap(), target);
        assert_eq!(end(vec![publication(5), publication(9)], 0), Some(20));
        assert_eq!(end(vec![publication(5), publication(8)], 0), None);
        assert_eq!(end(vec![publication(5), publication(8)], 3), Some(8));
        let quiet = Target {
            last: None,
            whole_to: 20,
        };
        assert_eq!(
            covered_to(5, &judge(5, found(vec![], 0), None).unwrap(), quiet),
            Some(20)
        );
    }
}
