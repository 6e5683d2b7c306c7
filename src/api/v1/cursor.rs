//! Where a reader of history goes on: an opaque text that holds the whole question, so that only
//! `limit` can be changed between two pages.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    channel::HistoryRead,
    model::{Epoch, MAX_OFFSET, Offset},
};

/// The form's version, first of all in the text.
const VERSION: &str = "1";

/// The longest text that is looked at.
const MAX_BYTES: usize = 256;

/// The question of the next page: as `read`, but beyond `offset`.
pub(in crate::api) fn encode(read: &HistoryRead, offset: Offset, epoch: &Epoch) -> String {
    let time = |time: Option<i64>| time.map(|time| time.to_string()).unwrap_or_default();
    let text = format!(
        "{VERSION}.{offset}.{}.{}.{}.{epoch}",
        if read.reverse { "r" } else { "f" },
        time(read.from_ms),
        time(read.to_ms),
    );
    URL_SAFE_NO_PAD.encode(text)
}

/// The question that `cursor` holds, without a limit; `None` if this is no cursor.
pub(in crate::api) fn decode(cursor: &str) -> Option<HistoryRead> {
    if cursor.len() > MAX_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    // The epoch is the last part, so that it may hold what it likes.
    let mut parts = text.splitn(6, '.');
    let mut part = || parts.next();
    if part()? != VERSION {
        return None;
    }
    let offset = number(part()?)?;
    let reverse = match part()? {
        "r" => true,
        "f" => false,
        _ => return None,
    };
    let (from, to, epoch) = (part()?, part()?, part()?);
    let time = |text: &str| match text {
        "" => Some(None),
        text => number(text).map(|time| i64::try_from(time).ok()),
    };
    // Nothing was before the first offset, and an empty epoch would match any.
    if offset == 0 || epoch.is_empty() {
        return None;
    }
    Some(HistoryRead {
        since: Some(offset),
        epoch: Some(Epoch::new(epoch)),
        from_ms: time(from)?,
        to_ms: time(to)?,
        limit: 0,
        reverse,
    })
}

/// A whole number that every client can hold.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number <= MAX_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_holds_the_question() {
        let epoch = Epoch::new("a.b-_");
        for (from_ms, to_ms, reverse) in [
            (None, None, false),
            (Some(1), None, true),
            (None, Some(2), false),
            (Some(0), Some(1_700_000_000_000), true),
        ] {
            let read = HistoryRead {
                from_ms,
                to_ms,
                reverse,
                ..HistoryRead::default()
            };
            let again = decode(&encode(&read, 7, &epoch)).unwrap();
            assert_eq!((again.since, again.epoch.as_ref()), (Some(7), Some(&epoch)));
            assert_eq!(
                (again.from_ms, again.to_ms, again.reverse),
                (from_ms, to_ms, reverse)
            );
        }
    }

    #[test]
    fn what_is_no_cursor() {
        for text in [
            "",
            "1",
            "1.7.f..",
            "2.7.f...e",
            "1.7.f...",
            "1.0.r...e",
            "1.7.x...e",
            "1.-7.f...e",
            "1.+7.f...e",
            "1.9007199254740992.f...e",
            "1.99999999999999999999.f...e",
            "1.7.f.x..e",
            "1.7.f..-1.e",
        ] {
            assert!(decode(&URL_SAFE_NO_PAD.encode(text)).is_none(), "{text}");
        }
        let good = URL_SAFE_NO_PAD.encode("1.7.f...e");
        assert!(decode(&good).is_some());
        for bad in [
            format!("{good}="),
            format!(" {good}"),
            good.repeat(100),
            "%".into(),
        ] {
            assert!(decode(&bad).is_none(), "{bad}");
        }
        assert!(decode(&URL_SAFE_NO_PAD.encode(b"1.7.f...\xff")).is_none());
    }
}
