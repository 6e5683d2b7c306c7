/// Publishes that wait for their acknowledgement: a slab of at most `limit` slots, each with a
/// deadline in ticks, so that one timer serves all of them. Pure.
#[derive(Debug)]
pub(super) struct Pending<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
    lifetime: u64,
    tick: u64,
}

#[derive(Debug)]
struct Slot<T> {
    waiter: Option<T>,
    /// Counts the slot's uses, so that a late acknowledgement finds nobody.
    generation: u32,
    /// The tick at which its time is over.
    until: u64,
}

/// Names one use of a slot. It travels in the reply subject.
pub(super) type Token = u64;

impl<T> Pending<T> {
    /// At most `limit` waiters, each for more than `lifetime` and at most `lifetime + 1` ticks.
    pub(super) fn new(limit: usize, lifetime: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            // An index must fit into half a token.
            limit: limit.min(u32::MAX as usize),
            lifetime,
            tick: 0,
        }
    }

    /// Adds a waiter; `None` if there are too many already.
    pub(super) fn insert(&mut self, waiter: T) -> Option<Token> {
        let until = self.tick + self.lifetime + 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.limit => {
                self.slots.push(Slot {
                    waiter: None,
                    generation: 0,
                    until,
                });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        slot.waiter = Some(waiter);
        slot.until = until;
        Some(Token::from(slot.generation) << 32 | Token::from(index))
    }

    /// Removes the waiter with this token, if it still waits.
    pub(super) fn take(&mut self, token: Token) -> Option<T> {
        let (generation, index) = ((token >> 32) as u32, token as u32);
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != generation {
            return None;
        }
        let waiter = slot.waiter.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(waiter)
    }

    /// One tick later: removes the waiters whose time is over.
    pub(super) fn tick(&mut self) -> Vec<T> {
        self.tick += 1;
        if self.free.len() == self.slots.len() {
            return Vec::new();
        }
        let mut expired = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.waiter.is_some() && slot.until <= self.tick {
                expired.extend(slot.waiter.take());
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(index as u32);
            }
        }
        expired
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l14_no_more_than_the_limit_wait() {
        let mut pending = Pending::new(2, 3);
        let first = pending.insert('a').unwrap();
        pending.insert('b').unwrap();
        assert_eq!((pending.insert('c'), pending.len()), (None, 2));
        assert_eq!(pending.take(first), Some('a'));
        assert!(pending.insert('c').is_some());
    }

    #[test]
    fn a_late_acknowledgement_finds_nobody() {
        let mut pending = Pending::new(1, 1);
        let first = pending.insert('a').unwrap();
        assert!(pending.tick().is_empty());
        assert_eq!(pending.tick(), ['a']);
        assert_eq!((pending.take(first), pending.len()), (None, 0));
        let second = pending.insert('b').unwrap();
        assert_ne!(first, second);
        assert_eq!((pending.take(first), pending.take(second)), (None, Some('b')));
        assert_eq!(pending.take(second), None);
    }

    #[test]
    fn each_waiter_has_its_own_deadline() {
        let mut pending = Pending::new(8, 2);
        pending.insert(0).unwrap();
        pending.tick();
        pending.insert(1).unwrap();
        assert!(pending.tick().is_empty());
        assert_eq!(pending.tick(), [0]);
        assert_eq!(pending.tick(), [1]);
        assert!(pending.tick().is_empty());
    }

    #[test]
    fn an_unknown_token_is_nobody() {
        let mut pending = Pending::<u8>::new(1, 1);
        assert_eq!(pending.take(0), None);
        assert_eq!(pending.take(u64::MAX), None);
    }
}
