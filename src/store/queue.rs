use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Work for threads, first in, first out. Bounded; whoever puts something in never waits.
pub(super) struct Queue<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Puts `work` at the end; false if there is no room.
    pub(super) fn push(&self, work: T) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.waiting.len() >= self.capacity {
            return false;
        }
        state.waiting.push_back(work);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Waits for work and takes up to `most` pieces of it, at least one. `None` when the queue is closed
    /// and all that was in it has been taken.
    pub(super) fn pop(&self, most: usize) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
        let count = state.waiting.len().min(most);
        Some(state.waiting.drain(..count).collect())
    }

    /// Takes no more. What is in it is still done.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}
