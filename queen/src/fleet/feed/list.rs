//! Values in the order of ever-growing numbers, each at one place only: a doubly linked list in a slab. Moving a
//! value to the end, and reading all that is newer than a number, take time in proportion to what they touch.

/// Where a value is kept, for as long as it is kept.
pub type Key = u32;

const NONE: Key = Key::MAX;
/// So many values are touched before they are read: what a processor waits for at once, and no more than its nearest cache holds.
pub const AHEAD: usize = 32;

#[derive(Debug)]
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

    /// The same, and reads ahead: `touch` is called for so many values, one after the other, before the first of them comes. What
    /// it reads is on its way from memory for all of them at the same time.
    pub fn newer_touched(
        &self,
        cursor: u64,
        hint: Option<Key>,
        touch: impl Fn(&T) -> i64,
    ) -> impl Iterator<Item = (Key, u64, &T)> {
        let (mut key, mut left) = (self.start(cursor, hint), 0);
        std::iter::from_fn(move || {
            if left == 0 {
                left = AHEAD;
                self.touch_from(key, &touch);
            }
            left -= 1;
            let node = self.nodes.get(key as usize)?;
            let found = (key, node.number, node.value.as_ref()?);
            key = node.after;
            Some(found)
        })
    }

    fn touch_from(&self, mut key: Key, touch: impl Fn(&T) -> i64) {
        let mut sum = 0;
        for _ in 0..AHEAD {
            let Some(node) = self.nodes.get(key as usize) else { break };
            sum ^= node.value.as_ref().map_or(0, &touch);
            key = node.after;
        }
        std::hint::black_box(sum);
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
    fn every_value_is_touched_once_and_before_it_comes() {
        let count = 2 * AHEAD as u64 + 7;
        let mut list = Ordered::default();
        let keys: Vec<_> = (1..=count).map(|number| list.push(number, number)).collect();
        list.advance(keys[4], count + 1);
        let (touched, cursor) = (std::cell::RefCell::new(Vec::new()), 9);
        let touch = |value: &u64| {
            touched.borrow_mut().push(*value);
            0
        };
        let mut met = Vec::new();
        for (_, _, value) in list.newer_touched(cursor, None, touch) {
            assert_eq!(touched.borrow()[met.len()], *value);
            met.push(*value);
        }
        assert!(met == *touched.borrow() && met.iter().copied().eq((10..=count).chain([5])), "{met:?}");
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
