//! Tails that nobody wants any more stay a while, so that a reconnect finds their rings.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::hub::{Channel, Hub};

/// Channels without members, by when their tails end. Each stands in it once at most, however often
/// its members come and go: it is bounded by the tails there can be.
#[derive(Default)]
pub(super) struct Lingering {
    queue: Mutex<Queue<Arc<Channel>>>,
    wake: Notify,
}

struct Queue<T> {
    by_time: BTreeMap<(Instant, u64), T>,
    due: HashMap<u64, Instant>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            by_time: BTreeMap::new(),
            due: HashMap::new(),
        }
    }
}

impl Lingering {
    /// The last member has left; again, if the channel stands here already.
    pub(super) fn add(&self, channel: &Arc<Channel>, due: Instant) {
        if self.queue.lock().add(channel.number, due, channel.clone()) {
            self.wake.notify_one();
        }
    }
}

impl<T> Queue<T> {
    /// True if it is the first that is due now.
    fn add(&mut self, number: u64, due: Instant, channel: T) -> bool {
        if let Some(before) = self.due.insert(number, due) {
            self.by_time.remove(&(before, number));
        }
        self.by_time.insert((due, number), channel);
        self.first() == Some(due)
    }

    fn first(&self) -> Option<Instant> {
        self.by_time.keys().next().map(|(due, _)| *due)
    }

    fn take_due(&mut self, now: Instant) -> Vec<T> {
        let mut over = Vec::new();
        while let Some(first) = self.by_time.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, number), channel) = first.remove_entry();
            self.due.remove(&number);
            over.push(channel);
        }
        over
    }
}

/// Ends tails whose time is over until the node stops.
pub(super) async fn run(hub: Arc<Hub>) {
    let lingering = &hub.lingering;
    loop {
        let first = lingering.queue.lock().first();
        match first {
            Some(due) => tokio::select! {
                () = sleep_until(due) => {}
                () = lingering.wake.notified() => continue,
            },
            None => {
                lingering.wake.notified().await;
                continue;
            }
        }
        let over = lingering.queue.lock().take_due(Instant::now());
        for channel in over {
            hub.end_if_idle(&channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_channel_that_comes_and_goes_stands_once_with_its_last_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Queue::default();
        assert!(queue.add(1, at(1), "a"));
        for second in 2..1_000 {
            queue.add(2, at(second), "b");
        }
        assert_eq!((queue.by_time.len(), queue.due.len()), (2, 2));
        assert_eq!(queue.take_due(at(998)), ["a"]);
        assert_eq!(
            (queue.first(), queue.take_due(at(999))),
            (Some(at(999)), vec!["b"])
        );
        assert!(queue.due.is_empty());
    }
}
