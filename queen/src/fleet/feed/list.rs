//! Values in the order of ever-growing numbers, each at one place only: a doubly linked list in a slab. Moving a
//! value to the end, and reading all that is newer than a number, take time in proportion to what they touch.

/// Where a value is kept, for as long as it is kept.
pub type Key = u32;

const NONE: Key = Key::MAX;
/// So many values are touched at once: what a processor waits for at the same time, and no more than its nearest cache holds.
pub const AHEAD: usize = 32;
/// So many at first: two neighbours may be all there are.
const FIRST_AHEAD: usize = 4;

/// Whole lines of the processor's cache.
#[derive(Debug)]
#[repr(C, align(64))]
struct Node<T> {
    before: Key,
    after: Key,
    number: u64,
    value: Option<T>,
}

/// The list.
#[derive(Debug)]
pub struct Ordered<T> {
    nodes: Vec<Node<T>>,
    free: Vec<Key>,
    first: Key,
    last: Key,
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), first: NONE, last: NONE }
    }
}

impl<T> Ordered<T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Puts a value at the end. `number` must be above every number given so far.
    pub fn push(&mut self, number: u64, value: T) -> Key {
        let node = Node { before: NONE, after: NONE, number, value: Some(value) };
        let key = match self.free.pop() {
            Some(key) => {
                self.nodes[key as usize] = node;
                key
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as Key
            }
        };
        self.append(key);
        key
    }

    /// Moves a value to the end under a new number.
    pub fn advance(&mut self, key: Key, number: u64) {
        if self.get(key).is_some() {
            self.unlink(key);
            self.nodes[key as usize].number = number;
            self.append(key);
        }
    }

    /// The value at a key.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.nodes.get(key as usize)?.value.as_ref()
    }

    /// The value at a key, to be changed where it is.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.nodes.get_mut(key as usize)?.value.as_mut()
    }

    /// The number of the value at a key.
    pub fn number(&self, key: Key) -> Option<u64> {
        self.nodes.get(key as usize).filter(|node| node.value.is_some()).map(|node| node.number)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let value = self.nodes.get_mut(key as usize)?.value.take()?;
        self.unlink(key);
        self.free.push(key);
        Some(value)
    }

    /// All values whose number is above `cursor`, oldest first. `hint` may name the value whose number is `cursor`.
    pub fn newer(&self, cursor: u64, hint: Option<Key>) -> impl Iterator<Item = (Key, u64, &T)> {
        let mut key = self.start(cursor, hint);
        std::iter::from_fn(move || {
            let node = self.nodes.get(key as usize)?;
            let found = (key, node.number, node.value.as_ref()?);
            key = node.after;
            Some(found)
        })
    }

    /// The same, and reads ahead: where neighbours follow each other, `touch` is called for some more of them at once, and for more
    /// the longer that goes on. What came together stands together, so that these are mostly the next; what `touch` reads is on
    /// its way from memory for all of them at the same time, which following the list from one to the other would not do.
    pub fn newer_touched(
        &self,
        cursor: u64,
        hint: Option<Key>,
        touch: impl Fn(&T) -> i64,
    ) -> impl Iterator<Item = (Key, u64, &T)> {
        let (mut key, mut neighbour, mut touched) = (self.start(cursor, hint), None, 0..0);
        let mut ahead = FIRST_AHEAD;
        std::iter::from_fn(move || {
            let node = self.nodes.get(key as usize)?;
            if neighbour != Some(key) {
                ahead = FIRST_AHEAD;
            } else if !touched.contains(&key) {
                touched = key..key.saturating_add(ahead as Key);
                self.touch(touched.clone(), &touch);
                ahead = (2 * ahead).min(AHEAD);
            }
            let found = (key, node.number, node.value.as_ref()?);
            (key, neighbour) = (node.after, key.checked_add(1));
            Some(found)
        })
    }

    fn touch(&self, keys: std::ops::Range<Key>, touch: impl Fn(&T) -> i64) {
        let values = keys.filter_map(|key| self.get(key));
        std::hint::black_box(values.fold(0, |sum, value| sum ^ touch(value)));
    }

    fn start(&self, cursor: u64, hint: Option<Key>) -> Key {
        if let Some(key) = hint.filter(|key| self.number(*key) == Some(cursor)) {
            return self.nodes[key as usize].after;
        }
        if self.nodes.get(self.first as usize).is_none_or(|node| node.number > cursor) {
            return self.first;
        }
        let (mut key, mut start) = (self.last, NONE);
        while let Some(node) = self.nodes.get(key as usize).filter(|node| node.number > cursor) {
            start = key;
            key = node.before;
        }
        start
    }

    fn append(&mut self, key: Key) {
        let last = std::mem::replace(&mut self.last, key);
        let node = &mut self.nodes[key as usize];
        (node.before, node.after) = (last, NONE);
        match self.nodes.get_mut(last as usize) {
            Some(before) => before.after = key,
            None => self.first = key,
        }
    }

    fn unlink(&mut self, key: Key) {
        let (before, after) = (self.nodes[key as usize].before, self.nodes[key as usize].after);
        match self.nodes.get_mut(before as usize) {
            Some(node) => node.after = after,
            None => self.first = after,
        }
        match self.nodes.get_mut(after as usize) {
            Some(node) => node.before = before,
            None => self.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newer(list: &Ordered<char>, cursor: u64, hint: Option<Key>) -> String {
        list.newer(cursor, hint).map(|(_, _, value)| *value).collect()
    }

    #[test]
    fn neighbours_are_touched_before_they_come_and_others_are_not() {
        let count = 3 * AHEAD as u64;
        let mut list = Ordered::default();
        let keys: Vec<_> = (1..=count).map(|number| list.push(number, number)).collect();
        list.advance(keys[4], count + 1);
        list.remove(keys[20]);
        let touched = std::cell::RefCell::new(Vec::new());
        let touch = |value: &u64| {
            touched.borrow_mut().push(*value);
            0
        };
        let met: Vec<u64> = list.newer_touched(9, None, touch).map(|(_, _, value)| *value).collect();
        let expected: Vec<u64> = (10..=count).filter(|value| *value != 21).chain([5]).collect();
        assert_eq!(met, expected);
        // Not the first ones, who were no neighbours of anybody before.
        let neighbours: Vec<u64> = (11..=count).filter(|value| *value != 21).collect();
        assert_eq!(*touched.borrow(), neighbours);
        for key in keys.iter().step_by(2) {
            list.advance(*key, count + 2 + u64::from(*key));
        }
        touched.borrow_mut().clear();
        assert_eq!(list.newer_touched(count + 1, None, touch).count(), count as usize / 2 - 1);
        assert!(touched.borrow().is_empty(), "no neighbours");
    }

    #[test]
    fn a_value_is_kept_once_at_its_newest_number() {
        let mut list = Ordered::default();
        let a = list.push(1, 'a');
        let b = list.push(2, 'b');
        let c = list.push(3, 'c');
        list.advance(a, 4);
        assert_eq!(
            (newer(&list, 0, None), newer(&list, 2, None), newer(&list, 4, None)),
            ("bca".into(), "ca".into(), String::new())
        );
        assert_eq!(newer(&list, 3, Some(c)), "a");
        assert_eq!(newer(&list, 3, Some(b)), "a", "a wrong hint is only slower");
        assert_eq!(list.remove(c), Some('c'));
        assert_eq!((newer(&list, 0, None), list.len(), list.number(c)), ("ba".into(), 2, None));
        assert_eq!(list.push(5, 'd'), c, "places are used again");
        list.advance(b, 6);
        assert_eq!(newer(&list, 0, None), "adb");
    }

    #[test]
    fn an_emptied_list_starts_over() {
        let mut list = Ordered::default();
        let a = list.push(1, 'a');
        list.remove(a);
        list.remove(a);
        assert_eq!(newer(&list, 0, None), "");
        list.push(2, 'b');
        assert_eq!(newer(&list, 0, None), "b");
    }
}
