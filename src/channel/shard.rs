//! What a node knows about a shard: its incarnation (L4), which answers count (L5), and from where
//! on everything is still retained (L6). Pure; [`super::keeper`] asks the questions.

use crate::{
    log::{EpochEntry, ShardInfo},
    model::{Epoch, Offset},
};

/// An answer of the leader that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// The shard's epoch.
    pub epoch: Epoch,
    /// Counts the epochs this node has seen: tells apart what belongs to an older one.
    pub incarnation: u64,
    /// The last sequence stored.
    pub last_seq: Offset,
    /// Everything from here on is still retained.
    pub floor: Offset,
}

/// What an INFO answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Counts,
    /// There is no epoch entry yet, or it is not known: load it or create it, then ask again.
    LoadEpoch,
    /// The stream was created anew: replace the epoch's token.
    Replace,
    /// Before anything is proven: look at the time stamp of the message at the mark, and see
    /// [`is_another`].
    CheckMark {
        /// Where the mark is.
        seq: Offset,
        /// The time stamp it should have.
        time_ms: i64,
    },
    /// It looks like going back. Write the anchor, and call [`Shard::on_ack`] with its answer; then
    /// ask again.
    Suspect,
}

/// Whether the message that the leader has at the mark (its time stamp, `None` if none is stored
/// there: it was removed with its channel's history, which proves nothing) is another than the one
/// that was marked: the sequence went back and grew again.
pub fn is_another(found_ms: Option<i64>, marked_ms: i64) -> bool {
    found_ms.is_some_and(|found_ms| found_ms != marked_ms)
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Shard {
    epoch: Option<EpochEntry>,
    incarnation: u64,
    /// Counts epochs and reconnects: what was asked before one of them tells nothing after it.
    round: u64,
    /// The highest sequence seen in this epoch: in answers, acknowledgements and copies.
    seen: Offset,
    /// Since the start or the last reconnect, the mark has been found where it should be.
    proven: bool,
    max_age_ms: i64,
    margin_ms: i64,
    /// A floor from [`crate::log::Log::first_since`] and the time it was asked for.
    known_since: Option<(i64, Offset)>,
}

impl Shard {
    /// A shard of which nothing is known. The margin is how far clocks may differ.
    pub fn new(max_age_ms: i64, margin_ms: i64) -> Self {
        Self {
            epoch: None,
            incarnation: 0,
            round: 0,
            seen: 0,
            proven: false,
            max_age_ms,
            margin_ms,
            known_since: None,
        }
    }

    /// The current epoch entry.
    pub fn epoch(&self) -> Option<&EpochEntry> {
        self.epoch.as_ref()
    }

    /// Counts the epochs this node has seen.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Changes with each epoch and each reconnect: an answer counts in the round it was asked in.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The highest sequence seen in this epoch.
    pub fn seen(&self) -> Offset {
        self.seen
    }

    /// Whether positions can be proven on this shard now.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The connection was lost and is back: the stream may have gone back meanwhile.
    pub fn on_reconnect(&mut self) {
        self.round += 1;
        self.proven = false;
    }

    /// A sequence was seen in a copy or an answer that belongs to `incarnation`.
    pub fn saw(&mut self, seq: Offset, incarnation: u64) {
        if incarnation == self.incarnation {
            self.seen = self.seen.max(seq);
        }
    }

    /// The registry's entry, loaded, created here or changed by another node. Returns true if it
    /// is another epoch than before (also the first one).
    pub fn on_epoch(&mut self, entry: EpochEntry) -> bool {
        let same = self
            .epoch
            .as_ref()
            .is_some_and(|known| known.token == entry.token);
        if same {
            self.seen = self.seen.max(entry.mark_seq);
        } else {
            self.incarnation += 1;
            self.round += 1;
            self.seen = entry.mark_seq;
            self.known_since = None;
            self.proven = false;
        }
        self.epoch = Some(entry);
        !same
    }

    /// Judges an INFO answer; `seen_before` is [`Shard::seen`] when it was asked for.
    pub fn on_info(&self, info: &ShardInfo, seen_before: Offset) -> Verdict {
        let Some(epoch) = &self.epoch else {
            return Verdict::LoadEpoch;
        };
        if epoch.created != info.created {
            return Verdict::Replace;
        }
        if info.last_seq < seen_before.max(epoch.mark_seq) {
            return Verdict::Suspect;
        }
        if self.proven {
            return Verdict::Counts;
        }
        if epoch.mark_seq == 0 || epoch.mark_seq < info.first_seq {
            return Verdict::Counts;
        }
        Verdict::CheckMark {
            seq: epoch.mark_seq,
            time_ms: epoch.mark_time_ms,
        }
    }

    /// An INFO answer counted: everything is proven from here on.
    pub fn proven(&mut self, info: &ShardInfo) {
        self.proven = true;
        self.seen = self.seen.max(info.last_seq);
    }

    /// An acknowledgement that is no duplicate's, and what had been seen *when it was sent*, in
    /// which incarnation. Returns true if it proves that the sequence went back.
    pub fn on_ack(&mut self, seq: Offset, seen_when_sent: Offset, incarnation: u64) -> bool {
        if incarnation != self.incarnation {
            return false;
        }
        if seq <= seen_when_sent {
            return true;
        }
        self.seen = self.seen.max(seq);
        false
    }

    /// No replica has let go by age what was stored since then, whatever its clock says.
    pub fn kept_since(&self, now_ms: i64) -> i64 {
        now_ms - self.max_age_ms + self.margin_ms
    }

    /// The floor by an INFO answer (L6), or `Err(time)`: ask which message is the first since then,
    /// hand it to [`Shard::on_first_since`], and come back.
    pub fn floor(&self, info: &ShardInfo, now_ms: i64) -> Result<Offset, i64> {
        let cutoff = self.kept_since(now_ms);
        if info.first_seq > info.last_seq || info.first_time_ms >= cutoff {
            return Ok(info.first_seq);
        }
        match self.known_since {
            Some((since, floor)) if since >= cutoff => Ok(floor.max(info.first_seq)),
            // Asked for a little ahead, so that the answer can be used for a while.
            _ => Err(cutoff + self.margin_ms.max(self.max_age_ms / 100)),
        }
    }

    /// The first message stored since `time_ms`, or the sequence that the next one will have.
    pub fn on_first_since(&mut self, time_ms: i64, floor: Offset) {
        self.known_since = Some((time_ms, floor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(token: &str, mark_seq: Offset) -> EpochEntry {
        EpochEntry {
            created: "then".into(),
            token: Epoch::new(token),
            mark_seq,
            mark_time_ms: if mark_seq == 0 { 0 } else { 1_000 },
        }
    }

    fn info(first_seq: Offset, last_seq: Offset) -> ShardInfo {
        ShardInfo {
            created: "then".into(),
            first_seq,
            last_seq,
            first_time_ms: 0,
            last_time_ms: 0,
            bytes: 0,
        }
    }

    fn shard(mark_seq: Offset) -> Shard {
        let mut shard = Shard::new(100_000, 1_000);
        shard.on_epoch(entry("a", mark_seq));
        shard
    }

    #[test]
    fn l4_nothing_is_proven_before_the_mark_is_found() {
        let unknown = Shard::new(100_000, 1_000);
        assert_eq!(unknown.on_info(&info(1, 5), 0), Verdict::LoadEpoch);
        let check = Verdict::CheckMark {
            seq: 7,
            time_ms: 1_000,
        };
        for (mark, first, last, verdict) in [
            (0, 1, 0, Verdict::Counts),
            (7, 1, 9, check.clone()),
            (7, 8, 9, Verdict::Counts),
            (7, 1, 6, Verdict::Suspect),
        ] {
            assert_eq!(
                shard(mark).on_info(&info(first, last), 0),
                verdict,
                "{mark} {first} {last}"
            );
        }
        let mut marked = shard(7);
        assert!(!is_another(Some(1_000), 1_000));
        assert!(!is_another(None, 1_000), "removed with its channel");
        assert!(is_another(Some(2_000), 1_000));
        marked.proven(&info(1, 9));
        assert_eq!(marked.on_info(&info(1, 9), 9), Verdict::Counts);
        marked.on_reconnect();
        assert_eq!(marked.on_info(&info(1, 9), 9), check);
    }

    #[test]
    fn l4_a_stream_created_anew_replaces_the_epoch() {
        let mut again = info(1, 50);
        again.created = "now".into();
        assert_eq!(shard(7).on_info(&again, 0), Verdict::Replace);
    }

    #[test]
    fn l5_an_answer_below_what_was_seen_does_not_count() {
        let mut shard = shard(0);
        shard.saw(10, 1);
        assert_eq!(shard.on_info(&info(1, 9), shard.seen()), Verdict::Suspect);
        assert_eq!(
            shard.on_info(&info(1, 9), 0),
            Verdict::Counts,
            "asked for before it was seen"
        );
    }

    #[test]
    fn l4_only_an_acknowledgement_not_above_what_was_seen_when_it_was_sent_is_proof() {
        let mut shard = shard(0);
        shard.saw(10, 1);
        assert!(!shard.on_ack(9, 8, 1), "it was overtaken by a later copy");
        assert!(shard.on_ack(9, 10, 1));
        assert!(!shard.on_ack(3, 10, 0), "of another incarnation");
    }

    #[test]
    fn l4_what_belongs_to_another_incarnation_is_not_seen() {
        let mut shard = shard(0);
        shard.saw(100, 1);
        assert!(shard.on_epoch(entry("b", 0)));
        shard.saw(100, 1);
        assert_eq!(shard.seen(), 0);
        assert!(!shard.on_epoch(entry("b", 5)), "only the mark moved");
        assert_eq!(shard.seen(), 5);
    }

    #[test]
    fn l6_the_floor_is_the_first_sequence_young_enough_for_every_clock() {
        let mut shard = shard(0);
        let mut info = info(10, 20);
        info.first_time_ms = 500_000;
        assert_eq!(shard.floor(&info, 590_000), Ok(10), "young");
        assert_eq!(shard.floor(&info, 599_000), Ok(10), "just young enough");
        assert_eq!(
            shard.floor(&info, 599_500),
            Err(501_500),
            "a replica may have let it go"
        );
        shard.on_first_since(501_500, 14);
        assert_eq!(shard.floor(&info, 599_500), Ok(14));
        assert_eq!(
            shard.floor(&info, 601_000),
            Err(503_000),
            "asked for too long ago"
        );
        assert_eq!(
            shard.floor(
                &ShardInfo {
                    first_seq: 21,
                    ..info
                },
                999_000
            ),
            Ok(21),
            "empty"
        );
    }
}
