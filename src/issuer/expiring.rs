//! A bounded map whose entries end by themselves: sessions, and revocations.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Timestamp;
use crate::secret::{BuildAlreadyHashed, KeyedHash};

/// The map is full of entries that have not ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// Values by keyed hash, each with its end. An ended one is never returned, whether or not it was removed yet.
pub struct Expiring<V> {
    entries: HashMap<KeyedHash, Entry<V>, BuildAlreadyHashed>,
    /// The same entries by their end; the number tells apart those that end together.
    ends: BTreeMap<(Timestamp, u64), KeyedHash>,
    next: u64,
    capacity: usize,
}

struct Entry<V> {
    value: V,
    end: (Timestamp, u64),
}

impl<V> Expiring<V> {
    /// An empty map of at most `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::default(), ends: BTreeMap::new(), next: 0, capacity }
    }

    /// Puts in `value` until `end`, in place of what was there; drops what has ended by `now`.
    ///
    /// # Errors
    /// When there is no room: [`Expiring::drop_first`] makes some.
    pub fn insert(&mut self, id: KeyedHash, value: V, end: Timestamp, now: Timestamp) -> Result<(), Full> {
        self.remove(&id);
        self.drop_ended(now);
        if self.entries.len() >= self.capacity {
            return Err(Full);
        }
        let end = (end, self.next);
        self.next += 1;
        self.ends.insert(end, id);
        self.entries.insert(id, Entry { value, end });
        Ok(())
    }

    /// The value, unless it has ended by `now`.
    pub fn get(&self, id: &KeyedHash, now: Timestamp) -> Option<&V> {
        self.entries.get(id).filter(|entry| now < entry.end.0).map(|entry| &entry.value)
    }

    /// Moves the end of an entry; nothing happens where there is none.
    pub fn extend(&mut self, id: &KeyedHash, end: Timestamp) {
        if let Some(entry) = self.entries.get_mut(id) {
            self.ends.remove(&entry.end);
            entry.end.0 = end;
            self.ends.insert(entry.end, *id);
        }
    }

    /// How many there are, those too that have ended and were not removed yet.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: &KeyedHash) -> Option<V> {
        let entry = self.entries.remove(id)?;
        self.ends.remove(&entry.end);
        Some(entry.value)
    }

    /// Whether there is no room for one more at `now`; drops what has ended first.
    pub fn is_full(&mut self, now: Timestamp) -> bool {
        self.drop_ended(now);
        self.entries.len() >= self.capacity
    }

    /// Takes out the entry that would end first.
    pub fn drop_first(&mut self) {
        if let Some((_, id)) = self.ends.pop_first() {
            self.entries.remove(&id);
        }
    }

    fn drop_ended(&mut self, now: Timestamp) {
        while self.ends.first_key_value().is_some_and(|((end, _), _)| *end <= now) {
            self.drop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::HashKey;
    use proptest::prelude::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_list_would_do(steps in proptest::collection::vec((0u8..5, 0u8..8, 0i64..20), 0..60)) {
            let key = HashKey::random().unwrap();
            let id = |n: u8| {
                let mut hasher = key.hasher();
                hasher.field(&[n]);
                hasher.finish()
            };
            let mut map = Expiring::new(4);
            let mut list: Vec<(u8, i64)> = Vec::new();
            for (now, (what, n, span)) in steps.into_iter().enumerate() {
                let now = i64::try_from(now).unwrap();
                let end = now + span;
                list.retain(|(_, end)| *end > now);
                match what {
                    0 | 1 => {
                        list.retain(|(other, _)| *other != n);
                        let room = list.len() < 4;
                        prop_assert_eq!(map.insert(id(n), n, at(end), at(now)).is_ok(), room);
                        if room {
                            list.push((n, end));
                        }
                    }
                    2 => {
                        map.remove(&id(n));
                        list.retain(|(other, _)| *other != n);
                    }
                    3 if map.get(&id(n), at(now)).is_some() => {
                        map.extend(&id(n), at(end));
                        list.iter_mut().filter(|(other, _)| *other == n).for_each(|entry| entry.1 = end);
                    }
                    _ => prop_assert_eq!(map.is_full(at(now)), list.len() >= 4),
                }
                for n in 0..8 {
                    let expected = list.iter().any(|(other, end)| *other == n && *end > now);
                    prop_assert_eq!(map.get(&id(n), at(now)).is_some(), expected);
                }
                prop_assert_eq!(map.entries.len(), map.ends.len());
                prop_assert!(map.entries.len() <= 4);
            }
        }
    }
}
